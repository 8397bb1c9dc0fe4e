//! The processes of the comparison: a small Cocoon network, and the plain servers beside it.
//!
//! Owns: their folders, flags, ends, and how much CPU time they took.
//! Must not: wait longer than a node may take to start.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A node answers on its control socket long before this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Ticks a second in `/proc/PID/stat`, the same on every Linux that this runs on.
const TICKS: u32 = 100;
/// What nodes on one machine listen at.
const LOOPBACK: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// User and system time of a process so far.
pub(crate) fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may hold anything; the 12th and 13th field after it are the times.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks: u32 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    Duration::from_secs(1) * ticks / TICKS
}

/// A running `cocoon-node`; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    data_dir: PathBuf,
    flags: Vec<String>,
    child: Child,
    /// Where its gateway listens, on a consumer.
    pub(crate) gateway: String,
}

fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon-node"));
    command
        .env_clear()
        .env("HOME", data_dir.parent().unwrap_or(data_dir))
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null());
    command
}

fn spawn(data_dir: &Path, flags: &[String]) -> Child {
    let log = data_dir.with_extension("log");
    let log = std::fs::File::options().append(true).create(true).open(log).unwrap();
    command(data_dir).args(flags).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Node {
    fn start(data_dir: PathBuf, flags: &[&str]) -> Self {
        let flags: Vec<_> = flags.iter().map(ToString::to_string).collect();
        let child = spawn(&data_dir, &flags);
        let node = Self { data_dir, flags, child, gateway: String::new() };
        node.status();
        node
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its `status`, as soon as it answers.
    fn status(&self) -> Value {
        let begin = Instant::now();
        loop {
            let output = command(&self.data_dir).args(["status", "--json"]).output().unwrap();
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).unwrap();
            }
            let log = || std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap();
            assert!(begin.elapsed() < PATIENCE, "the node does not start:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }

    /// Starts it once more with the same flags; does not wait.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.data_dir, &self.flags);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An entry point with the ledger, and one provider.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) provider: Node,
    _entry: Node,
    entry_point: String,
    ledger: String,
    folder: tempfile::TempDir,
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Network {
    /// Starts them; the engine pauses for `pace` before each token.
    pub(crate) fn start(pace: Duration) -> Self {
        // Beside the build's own files, for a folder in memory would make durability free.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let ledger = free_address();
        let flags = ["--listen", LOOPBACK, "--ledger-listen", &ledger];
        let entry = Node::start(folder.path().join("entry"), &flags);
        let status = entry.status();
        let entry_point = status["addresses"][0].as_str().expect("an address").to_owned();
        let ledger = format!("http://{ledger}");
        let data_dir = folder.path().join("provider");
        add_model(&data_dir);
        let pace = format!("{} ms", pace.as_millis());
        let flags = [
            ["--engine", "echo"],
            ["--model", "echo"],
            ["--echo-delay", &pace],
            ["--attester", "simulated"],
            ["--entry-points", &entry_point],
            ["--ledger", &ledger],
            ["--listen", LOOPBACK],
        ];
        let provider = Node::start(data_dir, &[&["--provide"], flags.as_flattened()].concat());
        Self { provider, _entry: entry, entry_point, ledger, folder }
    }

    /// A consumer with a fresh folder, running.
    pub(crate) fn consumer(&self, name: &str) -> Node {
        let data_dir = self.folder.path().join(name);
        add_model(&data_dir);
        let policy = self.folder.path().join("policy.toml");
        std::fs::write(&policy, cocoon_attest::simulated::dev_policy()).unwrap();
        let policy = policy.to_str().unwrap();
        let gateway = free_address();
        let flags = [
            ["--policy", policy],
            ["--entry-points", &self.entry_point],
            ["--ledger", &self.ledger],
            ["--listen", LOOPBACK],
            ["--gateway-listen", &gateway],
        ];
        let flags = [&["--consume"], flags.as_flattened()].concat();
        let mut node = Node::start(data_dir, &flags);
        node.gateway = gateway;
        node
    }

    /// Gives a consumer's wallet coins of the devnet.
    pub(crate) fn fund(&self, consumer: &Node) {
        let funded =
            command(&consumer.data_dir).args(["wallet", "fund", "5 TON"]).output().unwrap();
        assert!(funded.status.success(), "{}: {funded:?}", self.ledger);
    }
}

/// The echo engine reads no weights: the smallest GGUF file (version 3, no tensors, no entries)
/// gives the model its hash.
fn add_model(data_dir: &Path) {
    let file = data_dir.with_extension("gguf");
    std::fs::write(&file, [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &[0; 16]].concat()).unwrap();
    let added =
        command(data_dir).args(["models", "add"]).arg(&file).args(["--name", "echo"]).output();
    let added = added.unwrap();
    assert!(added.status.success(), "{added:?}");
}

/// A plain server in a process of its own: this program under another name.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    pub(crate) address: String,
}

impl Helper {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child =
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { child, address: address.trim().to_owned() }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
