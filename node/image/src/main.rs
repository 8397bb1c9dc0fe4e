//! The first process of the provider image: makes the machine ready, runs the node, turns the machine off.
//!
//! Owns: the order of the boot. Must not: offer a way in; there is no shell and no second service.
//! Invariant: everything that it runs or reads as code came with the initrd, and is measured with it;
//! what the host hands over otherwise (network, disk, clock) is data, and checked where it matters.

mod dhcp;
mod disk;
#[cfg(test)]
mod fuzzing;
mod model;
mod modules;
mod netlink;
mod network;
mod operator;
mod power;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_remount};
use rustix::system::{RebootCommand, reboot, sethostname};

use model::{MODEL_OPTION, ModelError, ModelPin, model_option};
use network::NetworkError;
use operator::OperatorError;

/// The node, in the initrd.
const NODE: &str = "/bin/cocoon-node";
/// The node's folder: in memory, so a machine that stops has forgotten it.
const DATA: &str = "/data";
/// Where its keystore's key lies: apart from the folder, as on a disk, and in memory as well.
const HOME: &str = "/run/home";
/// Where the model lies, in memory too.
const MODEL: &str = "/model";

/// Why the machine does not run a node.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("cannot mount {target}")]
    Mount {
        target: &'static str,
        #[source]
        source: rustix::io::Errno,
    },
    #[error("cannot make the folder {HOME}")]
    Home(#[source] std::io::Error),
    #[error("cannot read the kernel's command line")]
    CommandLine(#[source] std::io::Error),
    #[error(
        "the kernel's command line has no {MODEL_OPTION}NAME,BYTES,BLAKE3; build the image with a model"
    )]
    NoModel,
    #[error("the model cannot be used")]
    Model(#[from] ModelError),
    #[error("there is no network")]
    Network(#[from] NetworkError),
    #[error("what the operator asks for cannot be used")]
    Operator(#[from] OperatorError),
    #[error("{NODE} does not run")]
    Start(#[source] std::io::Error),
    #[error("{NODE} does not know the model: {status}")]
    Catalogue { status: ExitStatus },
    #[error("{NODE} does not take the operator's wallet: {status}")]
    Wallet { status: ExitStatus },
}

/// A line on the console.
fn say(text: impl Display) {
    // A machine without a console runs as well.
    let _ = writeln!(std::io::stderr(), "init: {text}");
}

fn main() -> ExitCode {
    if std::process::id() != 1 {
        say("this is the first process of the provider image, and of use nowhere else");
        return ExitCode::from(2);
    }
    match boot(std::env::args_os().skip(1).collect()) {
        Ok(status) => say(format_args!("the node ended: {status}")),
        Err(error) => {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                say(error);
                cause = error.source();
            }
        }
    }
    turn_off()
}

/// There is nothing to save: no disk is written.
fn turn_off() -> ExitCode {
    say("turning the machine off");
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(format_args!("the machine cannot be turned off: {error}"));
    }
    loop {
        std::thread::park();
    }
}

/// Brings the machine up and runs the node with `arguments`, which the kernel hands over from
/// behind the `--` of its command line.
fn boot(arguments: Vec<OsString>) -> Result<ExitStatus, BootError> {
    mount_all()?;
    let _ = sethostname(b"cocoon");
    // Otherwise three keys on a console of the host's restart the machine.
    let _ = reboot(RebootCommand::CadOff);
    let line = std::fs::read_to_string("/proc/cmdline").map_err(BootError::CommandLine)?;
    let pin = model_option(&line).ok_or(BootError::NoModel)?.parse::<ModelPin>()?;
    modules::load();
    mount_as(
        "configfs",
        "/sys/kernel/config",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    )
    .unwrap_or_else(|error| say(format_args!("no evidence can be made: {error}")));
    network::start()?;
    let model = model::fetch(&pin, Path::new(MODEL))?;
    // Last: until now the tree had to take mount points.
    mount_remount("/", MountFlags::RDONLY, c"")
        .map_err(|source| BootError::Mount { target: "/", source })?;

    let added = node().args(["models", "add"]).arg(&model).args(["--name", pin.name()]).status();
    let status = added.map_err(BootError::Start)?;
    if !status.success() {
        return Err(BootError::Catalogue { status });
    }
    let operator = operator::read()?;
    if let Some(words) = &operator.words {
        import_wallet(&arguments, words)?;
    }
    // A setting that is also measured is then given twice, which the node refuses.
    let mut running =
        node().args(operator.flags).args(arguments).spawn().map_err(BootError::Start)?;
    power::watch(running.id());
    running.wait().map_err(BootError::Start)
}

/// The node, with nothing of this process's surroundings.
fn node() -> Command {
    let mut command = Command::new(NODE);
    command.env_clear().env("HOME", HOME).env("NO_COLOR", "1");
    command.current_dir(DATA).args(["--data-dir", DATA]);
    command
}

/// Makes the operator's wallet the node's, so that what it earns outlives the machine.
fn import_wallet(arguments: &[OsString], words: &str) -> Result<(), BootError> {
    let mut import = node()
        .args(arguments)
        .args(["wallet", "import"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(BootError::Start)?;
    if let Some(mut pipe) = import.stdin.take() {
        // Whoever does not read says why by its status.
        let _ = writeln!(pipe, "{words}");
    }
    let status = import.wait().map_err(BootError::Start)?;
    if status.success() { Ok(()) } else { Err(BootError::Wallet { status }) }
}

fn mount_all() -> Result<(), BootError> {
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_as("proc", "/proc", plain, None)?;
    mount_as("sysfs", "/sys", plain, None)?;
    mount_as("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, Some(c"mode=0755"))?;
    mount_as("tmpfs", "/run", plain, Some(c"mode=0755,size=16m"))?;
    std::fs::create_dir(HOME).map_err(BootError::Home)?;
    mount_as("tmpfs", "/tmp", plain, Some(c"mode=1777,size=64m"))?;
    mount_as("tmpfs", DATA, plain, Some(c"mode=0700"))
}

fn mount_as(
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    options: Option<&std::ffi::CStr>,
) -> Result<(), BootError> {
    mount(kind, target, kind, flags, options).map_err(|source| BootError::Mount { target, source })
}

/// Pauses between two looks at something that the kernel brings up by itself.
fn pause() {
    std::thread::sleep(Duration::from_millis(100));
}
