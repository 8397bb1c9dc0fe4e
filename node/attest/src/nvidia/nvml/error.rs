//! Why GPUs make no evidence, and what to do about it.
//!
//! Owns: the words. Must not: reach peers; they hear that there is no evidence.

/// Why the machine's GPUs prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvidiaError {
    /// NVIDIA's management library is not there.
    #[error("NVIDIA's management library (libnvidia-ml.so.1) cannot be loaded: {reason}")]
    NoLibrary {
        /// The loader's words.
        reason: String,
    },
    /// The library is there and the driver is not.
    #[error("NVIDIA's driver is not loaded")]
    NoDriver,
    /// The library belongs to another driver than the one that is loaded.
    #[error("NVIDIA's library and driver are of different versions")]
    VersionMismatch,
    /// The driver does not know a call of confidential computing.
    #[error("NVIDIA's driver is too old: it lacks {call}")]
    TooOld {
        /// The call.
        call: &'static str,
    },
    /// This process may not talk to the driver.
    #[error("this process may not ask NVIDIA's driver for {call}")]
    Denied {
        /// What was asked.
        call: &'static str,
    },
    /// There are none.
    #[error("NVIDIA's driver shows no GPU")]
    NoGpu,
    /// There are more than a session can carry evidence of.
    #[error("the machine has {count} GPUs, and a session carries evidence of at most {limit}")]
    TooMany {
        /// How many there are.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The GPUs can do it and it is switched off, or they cannot.
    #[error("the GPUs do not run in confidential-computing mode")]
    NotConfidential,
    /// Confidential computing with debuggers let in: it protects nothing.
    #[error("the GPUs run in devtools mode, which protects nothing")]
    DevTools,
    /// The driver says that it is no production environment.
    #[error("NVIDIA's driver says that its confidential-computing environment is a simulation")]
    NotProduction,
    /// Several GPUs that talk through switches in the clear.
    #[error("the GPUs run in protected-PCIe mode, whose switches would have to show evidence too")]
    ProtectedPcie,
    /// The driver gives no work to the GPUs yet.
    #[error("the GPUs are not in the ready state, in which they take work")]
    NotReady,
    /// A GPU that was there does not answer any more.
    #[error("GPU {gpu} has fallen off the bus or needs a reset")]
    Lost {
        /// Its name and identifier.
        gpu: String,
    },
    /// The machine has other GPUs than when the node started.
    #[error("the machine has other GPUs than when this node started")]
    Changed,
    /// What the driver returned does not fit into its own buffer.
    #[error("NVIDIA's driver returned {call} of a length that cannot be")]
    Length {
        /// What was asked.
        call: &'static str,
    },
    /// A report or chain that is empty, or larger than a consumer reads.
    #[error("{call} of GPU {gpu} has {bytes} bytes, where 1 to {limit} are expected")]
    TooLarge {
        /// What was asked.
        call: &'static str,
        /// The GPU's name and identifier.
        gpu: String,
        /// How many bytes came.
        bytes: usize,
        /// How many may come.
        limit: usize,
    },
    /// The device's certificates are not in PEM.
    #[error("the certificates of GPU {gpu} are not in the form that NVIDIA's driver gives")]
    Certificates {
        /// Its name and identifier.
        gpu: String,
    },
    /// The driver refused.
    #[error("NVIDIA's driver refuses {call}: {reason}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// Its words.
        reason: String,
    },
}

impl NvidiaError {
    /// Whether there is nothing wrong: no GPU that this guest could use.
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::NoLibrary { .. } | Self::NoDriver | Self::NoGpu)
    }

    /// What to do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoLibrary { .. } => {
                "install NVIDIA's driver with its libraries in this guest (`nvidia-smi` has to work)"
            }
            Self::NoDriver => "`modprobe nvidia`, and see the kernel's log (`dmesg`)",
            Self::VersionMismatch => "reboot the guest after an update of NVIDIA's driver",
            Self::TooOld { .. } => "use NVIDIA's driver 550 or later",
            Self::Denied { .. } => "run the node as root in the guest; the guest is the boundary",
            Self::NoGpu => "pass a GPU through to this guest",
            Self::TooMany { .. } => "give this guest fewer GPUs",
            Self::NotConfidential | Self::DevTools => {
                "on the host: NVIDIA's `nvidia_gpu_tools.py --set-cc-mode=on \
                 --reset-after-cc-mode-switch` for each GPU (Hopper or later), then start the guest \
                 again; `nvidia-smi conf-compute -f` shows the mode"
            }
            Self::NotProduction => "use a GPU and a driver that are not engineering samples",
            Self::ProtectedPcie => {
                "pass single GPUs through, in mode `on` and not `ppcie`, or GPUs whose links are \
                 encrypted"
            }
            Self::NotReady => {
                "`nvidia-smi conf-compute -srs 1`; `nvidia-persistenced` has to run before it"
            }
            Self::Lost { .. } => "see the kernel's log (`dmesg`), and start the guest again",
            Self::Changed => "start the node again",
            Self::Length { .. }
            | Self::TooLarge { .. }
            | Self::Certificates { .. }
            | Self::Refused { .. } => {
                "see the kernel's log (`dmesg`), and update NVIDIA's driver and the GPU's VBIOS"
            }
        }
    }
}
