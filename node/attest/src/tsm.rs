//! Quotes and reports from the Linux kernel's configfs-tsm, the same interface for TDX and SEV-SNP.
//!
//! Owns: one entry for each report, its removal, the locks around it, and the check that nobody else
//! wrote to it. Must not: choose report data; only hashes of `attest::binding` get here.
//!
//! `Documentation/ABI/testing/configfs-tsm-report` of Linux: kernel 6.7 or later, root, and for TDX a
//! quoting service on the host. Exercised here on a tree that a test plays the kernel in; it has not
//! run on hardware.

mod kernel;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cocoon_protocol::attest::ReportData;
use cocoon_protocol::limits;

pub(crate) use kernel::{Filesystem, Kernel};

/// Where the kernel shows reports when configfs is mounted in its usual place.
pub const REPORTS: &str = "/sys/kernel/config/tsm/report";

/// What every entry of ours begins with.
const PREFIX: &str = "cocoon-node-";
/// How often a report is asked for again when another writer got in between, or the host's quoting
/// service was busy.
const ATTEMPTS: u32 = 3;
/// Longest table of certificates that a host may hand in: the kernel's own bound is 16 KiB.
const CERTIFICATES_BYTES: usize = 65_536;
/// A short text attribute.
const TEXT_BYTES: usize = 64;
/// How often a lock that another process holds is tried.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// One process asks for one report at a time: TEEs make them one by one, and the kernel would only
/// queue the callers where nobody can see them.
static TURN: Mutex<()> = Mutex::new(());

/// Which of the kernel's drivers answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsmProvider {
    /// A TDX guest; the report is a quote.
    Tdx,
    /// A SEV-SNP guest; the report is an attestation report.
    Snp,
}

impl TsmProvider {
    /// The driver's name, as the attribute `provider` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tdx => "tdx_guest",
            Self::Snp => "sev_guest",
        }
    }

    fn of(text: &[u8]) -> Option<Self> {
        [Self::Tdx, Self::Snp].into_iter().find(|it| it.as_str().as_bytes() == text.trim_ascii())
    }
}

impl fmt::Display for TsmProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How reports are asked for.
#[derive(Clone, Debug)]
pub struct TsmOptions {
    /// The kernel's report folder: [`REPORTS`].
    pub reports: PathBuf,
    /// SEV-SNP: the privilege level (VMPL, 0 to 3) that the report is to name; the kernel's own when
    /// absent. TDX has none.
    pub privilege_level: Option<u8>,
    /// How long another process may hold the interface before this one gives up. The channel's
    /// deadline for a whole answer is 10 s.
    pub lock_within: Duration,
}

impl Default for TsmOptions {
    fn default() -> Self {
        let lock_within = Duration::from_secs(5);
        Self { reports: REPORTS.into(), privilege_level: None, lock_within }
    }
}

/// What the kernel was asked to do when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TsmStep {
    /// Taking the lock on the report folder.
    Lock,
    /// Making the entry.
    Create,
    /// Reading `provider`.
    Provider,
    /// Reading `generation`.
    Generation,
    /// Writing `privlevel`.
    PrivilegeLevel,
    /// Writing `inblob`.
    ReportData,
    /// Reading `outblob`.
    Quote,
    /// Reading `auxblob`.
    Certificates,
}

impl fmt::Display for TsmStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "lock the report folder",
            Self::Create => "make a report entry",
            Self::Provider => "read the entry's provider",
            Self::Generation => "read the entry's generation",
            Self::PrivilegeLevel => "set the privilege level",
            Self::ReportData => "write the report data",
            Self::Quote => "read the quote",
            Self::Certificates => "read the host's certificates",
        })
    }
}

/// Why the kernel made no report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TsmError {
    /// There is no report folder.
    #[error(
        "the kernel offers no TSM reports at `{}`; needs Linux 6.7 or later in a TDX or SEV-SNP \
         guest, its driver (`modprobe tdx_guest` or `modprobe sev-guest`), and configfs \
         (`mount -t configfs none /sys/kernel/config`)",
        folder.display()
    )]
    NoInterface {
        /// Where it should be.
        folder: PathBuf,
    },
    /// The process may not.
    #[error("not permitted to {step}; run the node as root in the guest")]
    Denied {
        /// At which step.
        step: TsmStep,
    },
    /// Another process holds the interface for too long.
    #[error("another process is asking the TEE for reports and does not end; `fuser` names it")]
    Busy,
    /// The guest is of the other vendor.
    #[error("the kernel's TSM provider is `{found}`, not `{expected}`; set `attester` to match")]
    WrongProvider {
        /// What was asked for.
        expected: TsmProvider,
        /// What the kernel says, cut to a short text.
        found: String,
    },
    /// The report may be over somebody else's data, again and again.
    #[error("another writer keeps changing the report's entry; no other program may use it")]
    Conflict,
    /// The kernel gave nothing.
    #[error("the kernel gave an empty quote; on TDX check that the host's quoting service runs")]
    Empty,
    /// The kernel gave more than a verifier accepts.
    #[error("the kernel gave more than {limit} bytes when asked to {step}")]
    TooLarge {
        /// At which step.
        step: TsmStep,
        /// The bound.
        limit: usize,
    },
    /// Anything else that the kernel said.
    #[error("the kernel failed to {step}: {kind}")]
    Failed {
        /// At which step.
        step: TsmStep,
        /// What it said.
        kind: io::ErrorKind,
    },
}

impl TsmError {
    fn at(step: TsmStep, error: &io::Error) -> Self {
        let kind = error.kind();
        if kind == io::ErrorKind::PermissionDenied {
            Self::Denied { step }
        } else {
            Self::Failed { step, kind }
        }
    }

    /// Whether the same request may succeed a moment later.
    const fn passes(&self) -> bool {
        use io::ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
        match self {
            Self::Conflict => true,
            Self::Failed { step, kind } => {
                matches!(step, TsmStep::Quote | TsmStep::ReportData)
                    && matches!(kind, Interrupted | ResourceBusy | TimedOut | WouldBlock)
            }
            Self::NoInterface { .. }
            | Self::Denied { .. }
            | Self::Busy
            | Self::WrongProvider { .. }
            | Self::Empty
            | Self::TooLarge { .. } => false,
        }
    }
}

/// A report as the kernel gave it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TsmReport {
    /// TDX: the quote. SEV-SNP: the attestation report.
    pub(crate) quote: Vec<u8>,
    /// SEV-SNP: the host's table of certificates (GHCB specification §4.1.8.1); may be empty.
    pub(crate) certificates: Vec<u8>,
}

impl fmt::Debug for TsmReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { quote, certificates } = self;
        write!(f, "TsmReport({} bytes, {} of certificates)", quote.len(), certificates.len())
    }
}

/// The interface.
#[derive(Clone, Debug)]
pub(crate) struct Tsm {
    options: TsmOptions,
    kernel: Arc<dyn Kernel>,
}

impl Tsm {
    /// Touches nothing yet.
    pub(crate) fn new(options: TsmOptions) -> Self {
        Self::with_kernel(options, Arc::new(Filesystem))
    }

    pub(crate) fn with_kernel(options: TsmOptions, kernel: Arc<dyn Kernel>) -> Self {
        Self { options, kernel }
    }

    /// Which driver answers. Makes an entry and removes it; asks for no report.
    pub(crate) fn provider(&self) -> Result<String, TsmError> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock()?;
        let entry = self.entry()?;
        let provider = entry.read("provider", TEXT_BYTES, TsmStep::Provider)?;
        Ok(String::from_utf8_lossy(provider.trim_ascii()).into_owned())
    }

    /// A report of `expected`'s driver over exactly `report_data`. Blocks for as long as the TEE
    /// takes: about 50 ms for a TDX quote.
    pub(crate) fn report(
        &self,
        expected: TsmProvider,
        report_data: &ReportData,
    ) -> Result<TsmReport, TsmError> {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock()?;
        let entry = self.entry()?;
        let found = entry.read("provider", TEXT_BYTES, TsmStep::Provider)?;
        if TsmProvider::of(&found) != Some(expected) {
            let found = String::from_utf8_lossy(found.trim_ascii()).into_owned();
            return Err(TsmError::WrongProvider { expected, found });
        }
        let level = self.options.privilege_level.filter(|_| expected == TsmProvider::Snp);
        let mut attempt = 1;
        loop {
            match entry.exchange(level, report_data) {
                Err(error) if error.passes() && attempt < ATTEMPTS => {
                    tracing::warn!(%error, attempt, "asking the TEE again");
                    attempt += 1;
                }
                done => return done,
            }
        }
    }

    /// A lock on the report folder itself, which every process of the node takes: there is nothing
    /// to create, to own or to leave behind, and the kernel drops it with the process.
    fn lock(&self) -> Result<File, TsmError> {
        let folder = &self.options.reports;
        let file = File::open(folder).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                TsmError::NoInterface { folder: folder.clone() }
            } else {
                TsmError::at(TsmStep::Lock, &error)
            }
        })?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begin.elapsed() < self.options.lock_within => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(TsmError::Busy),
                Err(TryLockError::Error(error)) => {
                    return Err(TsmError::at(TsmStep::Lock, &error));
                }
            }
        }
    }

    /// A new entry of this process. Called with the lock held: whatever else bears our prefix was
    /// left by a process that was killed, and would stay in the kernel until the guest reboots.
    fn entry(&self) -> Result<Entry<'_>, TsmError> {
        let folder = &self.options.reports;
        for name in self.kernel.entries(folder).unwrap_or_default() {
            if name.starts_with(PREFIX) {
                tracing::debug!(name, "removing a report entry that a killed process left");
                let _ = self.kernel.remove(&folder.join(name));
            }
        }
        // The name says who asks and nothing about what for.
        let path = folder.join(format!("{PREFIX}{}", std::process::id()));
        self.kernel.create(&path).map_err(|error| TsmError::at(TsmStep::Create, &error))?;
        Ok(Entry { kernel: self.kernel.as_ref(), path })
    }
}

/// An entry in the kernel; removed when it goes out of scope, however that comes.
struct Entry<'a> {
    kernel: &'a dyn Kernel,
    path: PathBuf,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.remove(&self.path) {
            tracing::warn!(%error, "could not remove a TSM report entry");
        }
    }
}

impl Entry<'_> {
    fn read(&self, attribute: &str, limit: usize, step: TsmStep) -> Result<Vec<u8>, TsmError> {
        let path = self.path.join(attribute);
        let bytes = self.kernel.read(&path, limit).map_err(|error| TsmError::at(step, &error))?;
        if bytes.len() > limit { Err(TsmError::TooLarge { step, limit }) } else { Ok(bytes) }
    }

    fn write(&self, attribute: &str, bytes: &[u8], step: TsmStep) -> Result<(), TsmError> {
        let path = self.path.join(attribute);
        self.kernel.write(&path, bytes).map_err(|error| TsmError::at(step, &error))
    }

    fn generation(&self) -> Result<u64, TsmError> {
        let bytes = self.read("generation", TEXT_BYTES, TsmStep::Generation)?;
        let text = std::str::from_utf8(bytes.trim_ascii()).ok();
        let garbled =
            TsmError::Failed { step: TsmStep::Generation, kind: io::ErrorKind::InvalidData };
        text.and_then(|text| text.parse().ok()).ok_or(garbled)
    }

    /// Writes the request and reads the answer. The kernel counts every write; when the count has
    /// not grown by exactly ours, somebody else wrote as well, or one of ours was lost: the result
    /// of a write to a binary attribute of configfs is thrown away when the file is closed, so the
    /// count is also the only sign that `inblob` was taken.
    fn exchange(&self, level: Option<u8>, report_data: &ReportData) -> Result<TsmReport, TsmError> {
        let before = self.generation()?;
        let mut writes = 1;
        if let Some(level) = level {
            let text = level.to_string();
            self.write("privlevel", text.as_bytes(), TsmStep::PrivilegeLevel)?;
            writes += 1;
        }
        self.write("inblob", report_data.as_bytes(), TsmStep::ReportData)?;
        let quote = self.read("outblob", limits::EVIDENCE_BYTES, TsmStep::Quote);
        let certificates = match &quote {
            Ok(_) => self.certificates()?,
            Err(_) => Vec::new(),
        };
        // Before the quote's own error: a conflict explains it.
        if self.generation()? != before.wrapping_add(writes) {
            return Err(TsmError::Conflict);
        }
        match quote? {
            quote if quote.is_empty() => Err(TsmError::Empty),
            quote => Ok(TsmReport { quote, certificates }),
        }
    }

    fn certificates(&self) -> Result<Vec<u8>, TsmError> {
        match self.read("auxblob", CERTIFICATES_BYTES, TsmStep::Certificates) {
            // Drivers without certificates do not show the attribute, hosts without them leave it
            // empty.
            Err(TsmError::Failed { kind: io::ErrorKind::NotFound, .. }) => Ok(Vec::new()),
            read => read,
        }
    }
}

/// At most `limit` bytes of a file and one more, so that the caller can tell that it was too long.
pub(crate) fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}
