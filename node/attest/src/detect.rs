//! What this machine can prove about itself, and what is missing, step by step.
//!
//! Owns: the reading of `/proc`, `/dev` and `/sys`, and the words for what was found.
//! Must not: change the machine, ask for a quote, or run another program. The only thing made is an
//! empty report entry, which is removed: the kernel names its driver nowhere else.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::hardware::{Tee, exists};
#[cfg(feature = "nvml")]
use crate::nvidia::{NvidiaError, NvidiaSurvey};
use crate::rtmr::{self, RtmrError};
use crate::sev_guest::DEVICE as SEV_GUEST_DEVICE;
use crate::tsm::{
    Filesystem, Kernel, REPORTS, Tsm, TsmError, TsmOptions, TsmProvider, read_bounded,
};
use cocoon_protocol::attest::Register;

/// Largest file of `/proc` that is read: `cpuinfo` of a machine with many cores.
const FILE_BYTES: usize = 8 << 20;
/// First kernel with configfs-tsm.
const KERNEL_WITH_TSM: (u32, u32) = (6, 7);
/// First kernel that lets a TDX guest extend its registers.
const KERNEL_WITH_RTMR: (u32, u32) = (6, 16);

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// As it should be.
    Good,
    /// Not needed, or nothing to say about it here.
    Skipped,
    /// Works without, with less to show.
    Lacking,
    /// In the way of any evidence.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How it came out.
    pub standing: Standing,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when nothing is to be done.
    pub next: String,
}

impl Step {
    fn new(name: &'static str, standing: Standing, found: impl Into<String>) -> Self {
        Self { name, standing, found: found.into(), next: String::new() }
    }

    fn next(self, next: impl Into<String>) -> Self {
        Self { next: next.into(), ..self }
    }
}

/// Through which interface evidence can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// The kernel's configfs-tsm.
    Tsm,
    /// `/dev/sev-guest`.
    SevGuest,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tsm => "configfs-tsm",
            Self::SevGuest => "/dev/sev-guest",
        })
    }
}

/// What was found, in the order in which it has to be put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Each step.
    pub steps: Vec<Step>,
    /// The TEE that can be asked for evidence, and through what; `None` when there is none.
    pub tee: Option<(Tee, Interface)>,
    /// How many GPUs are in a mode in which they can be asked for evidence, when the driver was asked.
    pub gpus: usize,
}

/// The step about GPUs.
const GPUS: &str = "GPUs";

impl Detection {
    /// Asks NVIDIA's driver about this machine's GPUs, whichever root was looked at. The driver's word
    /// is not evidence, and no GPU is asked for any. May take a second.
    #[cfg(feature = "nvml")]
    #[must_use]
    pub fn with_gpus(self) -> Self {
        self.with_survey(NvidiaSurvey::of_this_machine())
    }

    /// Nothing: this build asks no GPU.
    #[cfg(not(feature = "nvml"))]
    #[must_use]
    pub const fn with_gpus(self) -> Self {
        self
    }

    /// What the driver says, in the place of what the kernel shows.
    #[cfg(feature = "nvml")]
    fn with_survey(mut self, survey: Result<NvidiaSurvey, NvidiaError>) -> Self {
        let none = self.steps.iter().any(|it| it.name == GPUS && it.standing == Standing::Skipped);
        let survey = match survey {
            Ok(survey) => survey,
            // Neither kernel nor library knows of a GPU: that is said already.
            Err(error) if none && error.is_absence() => {
                return self;
            }
            Err(error) => {
                self.steps.push(nvidia_lacks("GPU driver", &error));
                return self;
            }
        };
        self.steps.retain(|step| step.name != GPUS);
        let found = format!("NVIDIA's, {}", survey.driver);
        self.steps.push(Step::new("GPU driver", Standing::Good, found));
        for gpu in &survey.gpus {
            self.steps.push(Step::new("GPU", Standing::Good, gpu.to_string()));
        }
        match survey.mode {
            Ok(()) => {
                self.gpus = survey.gpus.len();
                let found = "confidential computing is on, and they take work";
                self.steps.push(Step::new("GPU mode", Standing::Good, found));
            }
            Err(error) => self.steps.push(nvidia_lacks("GPU mode", &error)),
        }
        self
    }
}

#[cfg(feature = "nvml")]
fn nvidia_lacks(name: &'static str, error: &NvidiaError) -> Step {
    Step::new(name, Standing::Lacking, error.to_string()).next(error.hint())
}

/// Looks at the machine below `root`, which is `/`.
pub fn detect(root: &Path) -> Detection {
    detect_with(root, Arc::new(Filesystem))
}

fn detect_with(root: &Path, kernel: Arc<dyn Kernel>) -> Detection {
    let machine = Machine { root };
    let version = machine.kernel_version();
    let (processor, vendor) = machine.processor();
    let mut steps = vec![machine.kernel(version), processor];
    let devices = machine.devices(vendor);
    let (configfs, tsm) = machine.tsm(kernel);
    steps.extend([devices, configfs, machine.privileges()]);
    let tee = match tsm {
        Ok(provider) => {
            let tee = match provider {
                TsmProvider::Tdx => Tee::Tdx,
                TsmProvider::Snp => Tee::Snp,
            };
            Some((tee, Interface::Tsm))
        }
        // The device needs no configfs; whether it answers shows with the first report.
        Err(_) if machine.has(SEV_GUEST_DEVICE) && machine.is_root() => {
            Some((Tee::Snp, Interface::SevGuest))
        }
        Err(_) => None,
    };
    if tee.is_some_and(|(tee, _)| tee == Tee::Tdx) {
        steps.push(machine.registers());
    }
    steps.push(machine.gpus());
    Detection { steps, tee, gpus: 0 }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Vendor {
    Intel,
    Amd,
    Other,
}

struct Machine<'a> {
    root: &'a Path,
}

impl Machine<'_> {
    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    fn has(&self, absolute: &str) -> bool {
        exists(&self.path(absolute))
    }

    fn text(&self, absolute: &str) -> Option<String> {
        let bytes = read_bounded(&self.path(absolute), FILE_BYTES).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn kernel_version(&self) -> Option<(u32, u32)> {
        let release = self.text("/proc/sys/kernel/osrelease")?;
        let mut parts = release.split(|letter: char| !letter.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    fn kernel(&self, version: Option<(u32, u32)>) -> Step {
        let name = "kernel";
        let Some((major, minor)) = version else {
            return Step::new(name, Standing::Missing, "no Linux kernel")
                .next("run the node in a Linux guest");
        };
        let found = format!("Linux {major}.{minor}");
        if version >= Some(KERNEL_WITH_RTMR) {
            Step::new(name, Standing::Good, found)
        } else if version >= Some(KERNEL_WITH_TSM) {
            let found = format!("{found}: makes quotes, cannot extend RTMR3");
            Step::new(name, Standing::Lacking, found).next("on TDX, use Linux 6.16 or later")
        } else {
            let found = format!("{found}: older than configfs-tsm (6.7)");
            Step::new(name, Standing::Lacking, found)
                .next("use Linux 6.7 or later; SEV-SNP also works through /dev/sev-guest")
        }
    }

    fn processor(&self) -> (Step, Vendor) {
        let name = "processor";
        let text = self.text("/proc/cpuinfo").unwrap_or_default();
        let field = |wanted: &str| {
            text.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == wanted).then_some(value.trim())
            })
        };
        let vendor = match field("vendor_id") {
            Some("GenuineIntel") => Vendor::Intel,
            Some("AuthenticAMD") => Vendor::Amd,
            _ => Vendor::Other,
        };
        let flags: Vec<_> = field("flags").unwrap_or_default().split_ascii_whitespace().collect();
        let model = field("model name").or_else(|| field("vendor_id")).unwrap_or("unknown");
        let guest = flags.contains(&"hypervisor");
        let step = match vendor {
            Vendor::Intel if flags.contains(&"tdx_guest") => {
                Step::new(name, Standing::Good, format!("{model}: a TDX guest"))
            }
            // A SEV-SNP guest shows no flag of its own: hosts that offer it have the same ones.
            Vendor::Amd if guest && flags.contains(&"sev_snp") => {
                let found = format!("{model}: a virtual machine with SEV-SNP, maybe its guest");
                Step::new(name, Standing::Good, found)
            }
            Vendor::Intel | Vendor::Amd if !guest => {
                let found = format!("{model}: bare metal, which attests nothing about itself");
                Step::new(name, Standing::Missing, found)
                    .next("run the node in a TDX or SEV-SNP guest on this machine")
            }
            Vendor::Intel => {
                let found = format!("{model}: a virtual machine that is no TDX guest");
                Step::new(name, Standing::Missing, found).next("ask the host for a TDX guest")
            }
            // Many kernels clear the flag in guests.
            Vendor::Amd => {
                let found = format!("{model}: a virtual machine that shows no SEV-SNP");
                Step::new(name, Standing::Lacking, found)
                    .next("it may be a guest all the same; the steps below decide")
            }
            Vendor::Other => {
                Step::new(name, Standing::Missing, format!("{model}: neither Intel nor AMD"))
                    .next("tiers above `open` need an Intel or AMD processor with TDX or SEV-SNP")
            }
        };
        (step, vendor)
    }

    fn devices(&self, vendor: Vendor) -> Step {
        let name = "guest driver";
        let found: Vec<_> =
            ["/dev/tdx_guest", SEV_GUEST_DEVICE].into_iter().filter(|it| self.has(it)).collect();
        if !found.is_empty() {
            return Step::new(name, Standing::Good, found.join(", "));
        }
        let step = Step::new(
            name,
            Standing::Missing,
            format!("neither /dev/tdx_guest nor {SEV_GUEST_DEVICE}"),
        );
        match vendor {
            Vendor::Intel => step.next("`modprobe tdx_guest` in a TDX guest"),
            Vendor::Amd => step.next("`modprobe sev-guest` in a SEV-SNP guest"),
            Vendor::Other => step,
        }
    }

    /// configfs-tsm, and which driver answers there.
    fn tsm(&self, kernel: Arc<dyn Kernel>) -> (Step, Result<TsmProvider, ()>) {
        let name = "TSM reports";
        let missing = |found: &str, next: &str| {
            (Step::new(name, Standing::Missing, found).next(next), Err(()))
        };
        if !self.has("/sys/kernel/config") {
            return missing("the kernel has no configfs", "use a kernel with CONFIG_CONFIGFS_FS");
        }
        let reports = self.path(REPORTS);
        if !exists(&reports) {
            let mounted = self.text("/proc/self/mounts").unwrap_or_default();
            let mounted = mounted.lines().any(|line| line.split(' ').nth(2) == Some("configfs"));
            return if mounted {
                missing(
                    &format!("configfs is mounted and has no {REPORTS}"),
                    "load the guest driver; needs Linux 6.7 and CONFIG_TSM_REPORTS",
                )
            } else {
                missing("configfs is not mounted", "`mount -t configfs none /sys/kernel/config`")
            };
        }
        let options = TsmOptions { reports, ..TsmOptions::default() };
        match Tsm::with_kernel(options, kernel).provider() {
            Ok(found) => match [TsmProvider::Tdx, TsmProvider::Snp]
                .into_iter()
                .find(|provider| provider.as_str() == found)
            {
                Some(provider) => {
                    (Step::new(name, Standing::Good, format!("provider {provider}")), Ok(provider))
                }
                None => missing(
                    &format!("provider `{found}`, which this program does not know"),
                    "use a TDX or SEV-SNP guest",
                ),
            },
            Err(error @ TsmError::Denied { .. }) => {
                missing(&error.to_string(), "run the node as root in the guest")
            }
            Err(error) => missing(&error.to_string(), "see the kernel's log (`dmesg`)"),
        }
    }

    fn is_root(&self) -> bool {
        let status = self.text("/proc/self/status").unwrap_or_default();
        let mut fields = status.lines().filter_map(|line| line.strip_prefix("Uid:"));
        // Real, effective, saved, file system: the effective one counts.
        fields.next().and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
    }

    fn privileges(&self) -> Step {
        let name = "privileges";
        if self.is_root() {
            Step::new(name, Standing::Good, "root")
        } else {
            Step::new(name, Standing::Missing, "not root, and the kernel's reports are root's")
                .next("run the node as root in the guest; the guest is the boundary")
        }
    }

    fn registers(&self) -> Step {
        let name = "RTMR3";
        match rtmr::read_rtmr3(&self.path(rtmr::MEASUREMENTS)) {
            Ok(Register::ZERO) => Step::new(name, Standing::Good, "zero; extended when providing"),
            Ok(register) => Step::new(name, Standing::Good, register.to_string()),
            Err(error @ RtmrError::NoInterface { .. }) => {
                Step::new(name, Standing::Lacking, error.to_string())
            }
            Err(error) => Step::new(name, Standing::Missing, error.to_string()),
        }
    }

    /// GPUs by NVIDIA's driver. Whether they run in confidential-computing mode the driver says to
    /// its own library only.
    fn gpus(&self) -> Step {
        let name = GPUS;
        let folder = self.path("/proc/driver/nvidia/gpus");
        let count = Filesystem.entries(&folder).map_or(0, |entries| entries.len());
        if count == 0 {
            return Step::new(name, Standing::Skipped, "none with NVIDIA's driver")
                .next("without GPU evidence the highest tier is `attested`");
        }
        let version = self.text("/proc/driver/nvidia/version").unwrap_or_default();
        let version = version.lines().next().unwrap_or_default();
        Step::new(name, Standing::Lacking, format!("{count}; {version}")).next(
            if cfg!(feature = "nvml") {
                "`nvidia-smi conf-compute -f` says whether they run in confidential-computing mode"
            } else {
                "this build asks no GPU for evidence: build with the feature `nvml` (or `cuda`)"
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tsm::tests::Tree;

    const ROOT_STATUS: &str = "Name:\tcocoon-node\nUid:\t1000\t0\t0\t0\n";

    /// A machine's files below a folder.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            for (path, text) in files {
                fake.write(path, text.as_bytes());
            }
            fake
        }

        fn write(&self, path: &str, bytes: &[u8]) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }

        fn folder(self, path: &str) -> Self {
            std::fs::create_dir_all(self.0.path().join(path)).unwrap();
            self
        }

        fn detect(&self, provider: &'static str) -> Detection {
            let kernel = Arc::new(Tree::new(provider, <[u8]>::to_vec));
            detect_with(self.0.path(), kernel)
        }
    }

    fn standing(detection: &Detection, name: &str) -> (Standing, String) {
        let step = detection.steps.iter().find(|step| step.name == name).unwrap();
        (step.standing, format!("{} | {}", step.found, step.next))
    }

    fn tdx() -> Fake {
        Fake::new(&[
            ("proc/sys/kernel/osrelease", "6.16.3-cloud-amd64\n"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon 8592+\n\
                 flags\t\t: fpu hypervisor tdx_guest\n",
            ),
            ("proc/self/status", ROOT_STATUS),
            ("dev/tdx_guest", ""),
        ])
        .folder("sys/kernel/config/tsm/report")
    }

    fn snp() -> Fake {
        Fake::new(&[
            ("proc/sys/kernel/osrelease", "6.1.0\n"),
            ("proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t: hypervisor sev sev_snp\n"),
            ("proc/self/status", ROOT_STATUS),
            ("dev/sev-guest", ""),
        ])
    }

    #[test]
    fn a_tdx_guest_is_recognised_by_what_the_kernel_answers() {
        let machine = tdx();
        machine.write("sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384", &[0; 48]);
        let found = machine.detect("tdx_guest");
        assert_eq!(found.tee, Some((Tee::Tdx, Interface::Tsm)));
        let good: Vec<_> = found
            .steps
            .iter()
            .filter(|step| step.standing == Standing::Good)
            .map(|step| step.name)
            .collect();
        let expected =
            ["kernel", "processor", "guest driver", "TSM reports", "privileges", "RTMR3"];
        assert_eq!(good, expected);
        let (gpus, words) = standing(&found, "GPUs");
        assert_eq!(gpus, Standing::Skipped);
        assert!(words.contains("the highest tier is `attested`"), "{words}");
        // Nothing stays behind.
        let reports = machine.0.path().join("sys/kernel/config/tsm/report");
        assert_eq!(std::fs::read_dir(reports).unwrap().count(), 0);
    }

    #[test]
    fn a_kernel_that_cannot_extend_rtmr3_is_said_to_lack_it() {
        let machine = tdx();
        machine.write("proc/sys/kernel/osrelease", b"6.8.0-45-generic\n");
        let found = machine.detect("tdx_guest");
        assert_eq!(standing(&found, "kernel").0, Standing::Lacking);
        assert_eq!(standing(&found, "RTMR3").0, Standing::Lacking);
        assert_eq!(found.tee, Some((Tee::Tdx, Interface::Tsm)));
    }

    #[test]
    fn a_sev_snp_guest_is_recognised_through_either_interface() {
        let device = snp();
        let found = device.detect("sev_guest");
        assert_eq!(found.tee, Some((Tee::Snp, Interface::SevGuest)));
        let (reports, words) = standing(&found, "TSM reports");
        assert_eq!((reports, words.contains("no configfs")), (Standing::Missing, true));
        let found = device.folder("sys/kernel/config/tsm/report").detect("sev_guest");
        assert_eq!(found.tee, Some((Tee::Snp, Interface::Tsm)));
        assert!(!found.steps.iter().any(|step| step.name == "RTMR3"));
    }

    #[test]
    fn without_root_nothing_can_be_proved_and_the_step_says_so() {
        let machine = snp();
        machine.write("proc/self/status", b"Uid:\t0\t1000\t0\t0\n");
        let found = machine.detect("sev_guest");
        assert_eq!(found.tee, None);
        let (standing, words) = standing(&found, "privileges");
        assert_eq!((standing, words.contains("as root")), (Standing::Missing, true));
    }

    #[test]
    fn each_missing_step_names_the_next_one() {
        let bare = Fake::new(&[
            ("proc/sys/kernel/osrelease", "6.16.0"),
            ("proc/cpuinfo", "vendor_id : AuthenticAMD\nflags : fpu sev_snp\n"),
        ]);
        let found = bare.detect("");
        assert_eq!(found.tee, None);
        assert!(standing(&found, "processor").1.contains("bare metal"));
        assert!(standing(&found, "guest driver").1.contains("modprobe sev-guest"));

        let unmounted = tdx().folder("sys/kernel/config");
        std::fs::remove_dir_all(unmounted.0.path().join("sys/kernel/config/tsm")).unwrap();
        assert!(standing(&unmounted.detect(""), "TSM reports").1.contains("mount -t configfs"));
        unmounted.write("proc/self/mounts", b"none /sys/kernel/config configfs rw 0 0\n");
        assert!(standing(&unmounted.detect(""), "TSM reports").1.contains("load the guest driver"));

        let arm = tdx().detect("arm_cca_guest");
        assert!(standing(&arm, "TSM reports").1.contains("`arm_cca_guest`"));
        assert_eq!(arm.tee, None);

        let nothing = Fake::new(&[]).detect("");
        assert!(standing(&nothing, "kernel").1.contains("no Linux kernel"));
        assert!(standing(&nothing, "processor").1.contains("neither Intel nor AMD"));
        assert_eq!(nothing.tee, None);
    }

    #[test]
    fn gpus_are_counted_by_their_driver() {
        let machine = tdx();
        machine.write("proc/driver/nvidia/gpus/0000:01:00.0/information", b"Model: H100\n");
        machine.write("proc/driver/nvidia/version", b"NVRM version: 575.32\nGCC: 12\n");
        let (standing, words) = standing(&machine.detect("tdx_guest"), "GPUs");
        assert_eq!(standing, Standing::Lacking);
        assert!(words.starts_with("1; NVRM version: 575.32 | "), "{words}");
    }

    #[cfg(feature = "nvml")]
    #[test]
    fn what_the_driver_says_of_gpus_takes_the_place_of_the_kernel_s_word() {
        use crate::nvidia::NvidiaGpu;

        let machine = tdx();
        machine.write("proc/driver/nvidia/gpus/0000:01:00.0/information", b"Model: H100\n");
        let survey = |mode| {
            let gpu = NvidiaGpu { uuid: "GPU-a".to_owned(), product: "NVIDIA H100".to_owned() };
            Ok(NvidiaSurvey { driver: "550.90.07".to_owned(), gpus: vec![gpu], mode })
        };
        let found = machine.detect("tdx_guest").with_survey(survey(Ok(())));
        assert_eq!(found.gpus, 1);
        assert!(!found.steps.iter().any(|step| step.name == "GPUs"));
        let driver = (Standing::Good, "NVIDIA's, 550.90.07 | ".to_owned());
        assert_eq!(standing(&found, "GPU driver"), driver);
        assert_eq!(standing(&found, "GPU").1, "NVIDIA H100 (GPU-a) | ");
        assert_eq!(standing(&found, "GPU mode").0, Standing::Good);

        for error in [NvidiaError::NotConfidential, NvidiaError::DevTools, NvidiaError::NotReady] {
            let found = machine.detect("tdx_guest").with_survey(survey(Err(error.clone())));
            let expected = (Standing::Lacking, format!("{error} | {}", error.hint()));
            assert_eq!((found.gpus, standing(&found, "GPU mode")), (0, expected));
        }
        // The kernel has a GPU, and the driver does not answer: both are said.
        let found = machine.detect("tdx_guest").with_survey(Err(NvidiaError::NoDriver));
        assert_eq!(standing(&found, "GPU driver").0, Standing::Lacking);
        assert_eq!(standing(&found, "GPUs").0, Standing::Lacking);
        // Without any GPU, nothing about one is lacking.
        let bare = tdx();
        for error in [NvidiaError::NoGpu, NvidiaError::NoLibrary { reason: "no file".to_owned() }] {
            let found = bare.detect("tdx_guest").with_survey(Err(error));
            assert_eq!(found, bare.detect("tdx_guest"));
        }
    }
}
