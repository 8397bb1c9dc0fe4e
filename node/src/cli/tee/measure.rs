//! `tee measure`: what a guest will be measured as, for a policy's list of images.
//!
//! Owns: the layout, and an entry that can be pasted into a policy.
//! Must not: compute; `cocoon_attest::measure` does.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::ValueEnum;
use cocoon_attest::expected_rtmr3;
use cocoon_attest::measure::{
    BootFiles, InitrdOption, MeasureError, PageOrder, SnpLaunch, TdxBoot, TdxMeasured, VcpuType,
    measure_tdx, snp_launch_digest,
};
use cocoon_protocol::attest::Register;
use serde::Serialize;

use super::{Context, ExitStatus, Failure};

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Command {
    /// An SEV-SNP guest's launch digest, one for each number and model of processors.
    Snp(Box<Snp>),
    /// A TDX guest's MRTD, and RTMR1 and RTMR2 of QEMU's direct boot.
    ///
    /// Covers QEMU 10.1 or newer with `-bios`, `-kernel`, `-initrd`, `-append` and no `-shim`, and edk2's
    /// IntelTdx firmware. RTMR0 depends on the machine's shape: `tee record` reads it on a reference host.
    Tdx(Box<Tdx>),
}

/// What is booted.
#[derive(Debug, clap::Args)]
struct Boot {
    /// The kernel that QEMU is given by `-kernel`.
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// The initial file system that QEMU is given by `-initrd`.
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The command line that QEMU is given by `-append`; by default empty.
    #[arg(long, value_name = "TEXT", requires = "kernel", allow_hyphen_values = true)]
    command_line: Option<String>,
    /// The same from a file; a line feed at its end does not count.
    #[arg(long, value_name = "FILE", requires = "kernel", conflicts_with = "command_line")]
    command_line_file: Option<PathBuf>,
}

/// How the result is printed.
#[derive(Debug, clap::Args)]
struct Form {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print entries for a policy's list of images.
    #[arg(long, conflicts_with = "json")]
    entry: bool,
    /// Digest of the node's configuration, which it logs when it is ready: for RTMR3 of TDX, or the
    /// host data of SNP.
    #[arg(long, value_name = "HEX", value_parser = digest)]
    configuration: Option<[u8; 32]>,
    /// The image's name in the policy.
    #[arg(long, default_value = "cocoon-node", value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Snp {
    /// OVMF in one file, with SEV metadata; its AmdSev build if there is a kernel.
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    #[command(flatten)]
    boot: Boot,
    /// Numbers of virtual processors (`-smp`).
    #[arg(long, value_name = "NUMBER", required = true, value_delimiter = ',')]
    vcpus: Vec<u32>,
    /// Models of processor (`-cpu`).
    #[arg(long, value_name = "MODEL", required = true, value_delimiter = ',')]
    vcpu_type: Vec<VcpuType>,
    /// SEV features of the processors' first state.
    #[arg(long, value_name = "BITS", default_value = "0x1", value_parser = bits)]
    guest_features: u64,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Tdx {
    /// The TDVF: OVMF's IntelTdx build.
    #[arg(long, value_name = "FILE")]
    firmware: PathBuf,
    #[command(flatten)]
    boot: Boot,
    /// How the host's kernel builds the guest's first memory: `section` before Linux 6.16.
    #[arg(long, value_name = "ORDER", default_value = "page")]
    page_order: Order,
    /// Where the firmware adds `initrd=initrd` to the command line: `after` for edk2 2025.02 and older.
    #[arg(long, value_name = "PLACE", default_value = "before")]
    initrd_option: Place,
    /// Recorded values of RTMR0 for the policy, one for each shape of machine.
    #[arg(long, value_name = "HEX", value_delimiter = ',', value_parser = register)]
    rtmr0: Vec<Register>,
    #[command(flatten)]
    form: Form,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Order {
    /// Add and measure one page after the other.
    Page,
    /// Add all pages of a section, then measure them.
    Section,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    /// In front.
    Before,
    /// Behind.
    After,
}

fn bits(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "expected 64 hexadecimal digits".to_owned())?;
    Ok(bytes)
}

fn register(text: &str) -> Result<Register, String> {
    let mut bytes = [0; 48];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "expected 96 hexadecimal digits".to_owned())?;
    Ok(Register::from_bytes(bytes))
}

pub(super) fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Snp(arguments) => snp(context, *arguments),
        Command::Tdx(arguments) => tdx(context, *arguments),
    }
}

fn failure(error: MeasureError) -> Failure {
    let status = match &error {
        MeasureError::VcpuCount { .. } | MeasureError::CommandLine { .. } => ExitStatus::Usage,
        MeasureError::Read { .. }
        | MeasureError::TooLarge { .. }
        | MeasureError::Firmware { .. }
        | MeasureError::Kernel { .. }
        | MeasureError::Digest { .. } => ExitStatus::Failure,
    };
    Failure::new(error).with_status(status)
}

impl Boot {
    fn files(self) -> Result<Option<BootFiles>, Failure> {
        let (Some(kernel), Some(initrd)) = (self.kernel, self.initrd) else {
            return Ok(None);
        };
        let command_line = match (self.command_line, self.command_line_file) {
            (Some(text), _) => text,
            (None, Some(path)) => {
                let about = || anyhow!("cannot read {} as a command line", path.display());
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| Failure::new(anyhow::Error::new(error).context(about())))?;
                text.strip_suffix('\n').unwrap_or(&text).to_owned()
            }
            (None, None) => String::new(),
        };
        Ok(Some(BootFiles { kernel, initrd, command_line }))
    }
}

/// A launch digest as JSON.
#[derive(Serialize)]
struct Digest {
    vcpus: u32,
    vcpu_type: String,
    measurement: Register,
}

#[derive(Serialize)]
struct Digests {
    digests: Vec<Digest>,
}

fn snp(context: &Context, arguments: Snp) -> Result<(), Failure> {
    let Snp { firmware, boot, vcpus, vcpu_type, guest_features, form } = arguments;
    let mut launch = SnpLaunch {
        firmware,
        boot: boot.files()?,
        vcpus: 1,
        vcpu_type: *vcpu_type.first().ok_or_else(|| Failure::new(anyhow!("no model is named")))?,
        guest_features,
    };
    let mut digests = Vec::new();
    for vcpu_type in vcpu_type {
        for &vcpus in &vcpus {
            launch = SnpLaunch { vcpus, vcpu_type, ..launch };
            let measurement = snp_launch_digest(&launch).map_err(failure)?;
            digests.push(Digest { vcpus, vcpu_type: vcpu_type.to_string(), measurement });
        }
    }
    let printer = &context.printer;
    if form.json {
        return printer.json(&Digests { digests });
    }
    if form.entry {
        for digest in &digests {
            let name = format!("{}, {} x{}", form.name, digest.vcpu_type, digest.vcpus);
            printer.line("[[snp.image]]")?;
            printer.line(format_args!("name = {}", toml::Value::String(name)))?;
            printer.line(format_args!("measurement = \"{}\"", digest.measurement))?;
            printer.line(format_args!("vcpus = {}", digest.vcpus))?;
            if let Some(configuration) = form.configuration {
                printer.line(format_args!("host_data = \"{}\"", hex::encode(configuration)))?;
            }
            printer.line("")?;
        }
        return Ok(());
    }
    let rows: Vec<_> = digests
        .iter()
        .map(|it| vec![it.vcpu_type.clone(), it.vcpus.to_string(), it.measurement.to_string()])
        .collect();
    printer.table("launch digests", &["MODEL", "VCPUS", "MEASUREMENT"], &rows)?;
    if launch.boot.is_none() {
        printer.note(
            "note: without a kernel, the digest says nothing about what the firmware boots\n",
        );
    }
    Ok(())
}

/// A TDX guest's registers as JSON.
#[derive(Serialize)]
struct Registers {
    mrtd: Register,
    rtmr1: Option<Register>,
    rtmr2: Option<Register>,
    rtmr3: Option<Register>,
}

fn tdx(context: &Context, arguments: Tdx) -> Result<(), Failure> {
    let Tdx { firmware, boot, page_order, initrd_option, rtmr0, form } = arguments;
    let guest = TdxBoot {
        firmware,
        boot: boot.files()?,
        page_order: match page_order {
            Order::Page => PageOrder::Page,
            Order::Section => PageOrder::Section,
        },
        initrd_option: match initrd_option {
            Place::Before => InitrdOption::Before,
            Place::After => InitrdOption::After,
        },
    };
    let TdxMeasured { mrtd, rtmr1_and_2 } = measure_tdx(&guest).map_err(failure)?;
    let (rtmr1, rtmr2) = rtmr1_and_2.unzip();
    let rtmr3 = form.configuration.map(|configuration| expected_rtmr3(&configuration));
    let printer = &context.printer;
    if form.json {
        return printer.json(&Registers { mrtd, rtmr1, rtmr2, rtmr3 });
    }
    if form.entry {
        let (Some(rtmr1), Some(rtmr2)) = (rtmr1, rtmr2) else {
            return Err(Failure::new(anyhow!("a policy's entry needs RTMR1 and RTMR2"))
                .with_status(ExitStatus::Usage)
                .with_hint(Some("give `--kernel`, `--initrd` and `--command-line`")));
        };
        let rtmr0: Vec<_> = rtmr0.iter().map(|register| format!("\"{register}\"")).collect();
        printer.line("[[tdx.image]]")?;
        printer.line(format_args!("name = {}", toml::Value::String(form.name)))?;
        printer.line(format_args!("mrtd = \"{mrtd}\""))?;
        if rtmr0.is_empty() {
            printer.line("# One for each shape of machine, from `tee record`. Without any, no policy accepts this entry.")?;
        }
        printer.line(format_args!("rtmr0 = [{}]", rtmr0.join(", ")))?;
        printer.line(format_args!("rtmr1 = \"{rtmr1}\""))?;
        printer.line(format_args!("rtmr2 = \"{rtmr2}\""))?;
        if rtmr3.is_none() {
            printer.line("# As if the kernel could not extend it, before Linux 6.16; else give `--configuration`.")?;
        }
        let rtmr3 = rtmr3.unwrap_or(Register::ZERO);
        return printer.line(format_args!("rtmr3 = \"{rtmr3}\"\n"));
    }
    printer.line(format_args!("mrtd   {mrtd}"))?;
    for (name, register) in [("rtmr1", rtmr1), ("rtmr2", rtmr2), ("rtmr3", rtmr3)] {
        if let Some(register) = register {
            printer.line(format_args!("{name}  {register}"))?;
        }
    }
    printer.note("note: rtmr0 depends on the machine's shape: `cocoon-node tee record` reads it on a reference host\n");
    Ok(())
}
