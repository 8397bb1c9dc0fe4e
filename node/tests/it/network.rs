//! A network of real nodes on this machine: an entry point with the ledger, and who joins it.
//!
//! Owns: ports, folders and arguments. Must not: know what a test is about.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gateway::{Answer, request};
use crate::process::{Node, Outcome, Sandbox};

/// Name of the model that needs no weights.
pub(crate) const ECHO: &str = "echo";
/// Name of the model in `COCOON_TEST_MODEL`.
pub(crate) const REAL: &str = "smollm2-135m";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Prices at which a single answer of a hundred tokens is worth its settlement.
const PRICES: [&str; 4] = ["--prompt-price", "10 TON", "--completion-price", "40 TON"];
/// Prices at which a short answer of the real model is.
const REAL_PRICES: [&str; 4] = ["--prompt-price", "50 TON", "--completion-price", "200 TON"];
/// For whatever must come about by itself: far above what it takes, below what hangs a build.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that no system hands out to whoever connects somewhere: a test that listens there after a
/// restart finds its port free again.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A port of which nobody knew until now, for TCP and UDP. Tests of one process never get the same
/// one; two processes begin in different places.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    loop {
        let offset = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port =
            PORTS.start + u16::try_from(offset % u32::from(PORTS.end - PORTS.start)).unwrap();
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free {
            return port;
        }
    }
}

/// The real model's file, or `None` with a word about it.
pub(crate) fn real_model() -> Option<PathBuf> {
    let path = std::env::var_os("COCOON_TEST_MODEL").map(PathBuf::from);
    if path.is_none() {
        println!("skipped: COCOON_TEST_MODEL is not set");
    }
    path
}

/// Asks until there is an answer.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come about: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An entry point that serves the ledger, and the folder of everybody.
pub(crate) struct Network {
    sandbox: Sandbox,
    entry: Mutex<Option<Node>>,
    /// Where it listens, so that it comes back there after it was killed.
    listen: String,
    address: String,
    ledger_port: u16,
    liteserver: String,
    ledger: String,
}

impl Network {
    pub(crate) fn start() -> Self {
        let ledger_port = free_port();
        let mut network = Self {
            sandbox: Sandbox::new(),
            entry: Mutex::new(None),
            listen: format!("/ip4/127.0.0.1/udp/{}/quic-v1", free_port()),
            address: String::new(),
            ledger_port,
            liteserver: format!("127.0.0.1:{}", free_port()),
            ledger: format!("http://127.0.0.1:{ledger_port}"),
        };
        network.start_entry();
        let status = network.run(&["--data-dir", "entry", "status", "--json"]).success();
        let status: Value = serde_json::from_str(&status).unwrap();
        network.address = status["addresses"][0].as_str().unwrap().to_owned();
        network
    }

    /// Starts the entry point, after it was killed.
    pub(crate) fn start_entry(&self) {
        let ledger = format!("127.0.0.1:{}", self.ledger_port);
        let proofs = ["--ledger-liteserver-listen", &self.liteserver];
        let own = [&["--listen", &self.listen, "--ledger-listen", &ledger], &proofs[..]].concat();
        let node = self.sandbox.start(&[&["--data-dir", "entry"], &own[..]].concat());
        *self.entry.lock().unwrap() = Some(node);
    }

    /// Kills the entry point, and with it the ledger, and waits until it is gone.
    pub(crate) fn kill_entry(&self) {
        drop(self.entry.lock().unwrap().take());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        self.sandbox.write(name, content)
    }

    /// URL of the ledger that the entry point serves.
    pub(crate) fn ledger(&self) -> &str {
        &self.ledger
    }

    /// The file that names the liteserver of the same ledger.
    pub(crate) fn ton_config(&self) -> String {
        self.path("entry").join("liteserver.json").to_str().unwrap().to_owned()
    }

    /// Coins from the devnet's faucet.
    pub(crate) fn fund(&self, address: &str, nano: u64) {
        let body = format!("{{\"address\": \"{address}\", \"amount\": \"{nano}\"}}");
        let answer = request(self.ledger_port, "POST", "/devnet/faucet", &[], body.as_bytes());
        assert_eq!(answer.status, 200);
    }

    /// The entry point's process.
    pub(crate) fn entry(&self) -> u32 {
        self.entry.lock().unwrap().as_ref().unwrap().id()
    }

    /// Port of the ledger's HTTP interface.
    pub(crate) const fn ledger_port(&self) -> u16 {
        self.ledger_port
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.sandbox.run(arguments)
    }

    /// The program, to be run as the caller likes.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        self.sandbox.command(arguments)
    }

    /// Starts a provider of [`ECHO`] with a simulated TEE.
    pub(crate) fn provide(&self, name: &'static str, more: &[&str]) -> Peer<'_> {
        self.provide_as(name, "simulated", more)
    }

    /// Starts a provider of [`ECHO`] with this evidence.
    pub(crate) fn provide_as(&self, name: &'static str, attester: &str, more: &[&str]) -> Peer<'_> {
        self.add_model(name, ECHO, &self.echo_file());
        let own = ["--provide", "--model", ECHO, "--engine", "echo", "--attester", attester];
        self.join(name, None, &[&own, &PRICES[..], more].concat())
    }

    /// Starts a provider of [`REAL`], computed by one thread.
    pub(crate) fn provide_real(&self, name: &'static str, file: &Path) -> Peer<'_> {
        self.add_model(name, REAL, file);
        let own = ["--provide", "--model", REAL, "--engine-threads", "1", "--engine-slots", "2"];
        let attested = ["--attester", "simulated", "--context-tokens", "1024"];
        self.join(name, None, &[&own[..], &attested, &REAL_PRICES].concat())
    }

    /// Starts a consumer that accepts simulated TEEs, with an empty wallet.
    pub(crate) fn consume_unfunded(&self, name: &'static str, more: &[&str]) -> Peer<'_> {
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/dev-policy.toml");
        self.consume_under(name, policy, more)
    }

    /// Starts a consumer with this policy and an empty wallet.
    pub(crate) fn consume_under(
        &self,
        name: &'static str,
        policy: &str,
        more: &[&str],
    ) -> Peer<'_> {
        self.add_model(name, ECHO, &self.echo_file());
        if let Some(file) = std::env::var_os("COCOON_TEST_MODEL") {
            self.add_model(name, REAL, Path::new(&file));
        }
        let port = free_port();
        let gateway = format!("127.0.0.1:{port}");
        let own = ["--consume", "--policy", policy, "--gateway-listen", &gateway];
        self.join(name, Some(port), &[&own, more].concat())
    }

    /// Starts a consumer that accepts simulated TEEs and can pay.
    pub(crate) fn consume(&self, name: &'static str, more: &[&str]) -> Peer<'_> {
        let consumer = self.consume_unfunded(name, more);
        consumer.run(&["wallet", "fund", "5 TON"]).success();
        consumer
    }

    fn join(&self, name: &'static str, gateway: Option<u16>, own: &[&str]) -> Peer<'_> {
        let common = ["--data-dir", name, "--entry-points", &self.address];
        let listen: &[_] = if own.contains(&"--listen") { &[] } else { &["--listen", QUIC] };
        let url = ["--ledger", &self.ledger];
        let ledger: &[_] = if own.contains(&"--ledger") { &[] } else { &url };
        let arguments = [&common[..], listen, ledger, own].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let mut peer = Peer { network: self, name, gateway, arguments, node: None };
        peer.start();
        peer
    }

    fn echo_file(&self) -> PathBuf {
        // The smallest header that is a GGUF file: version 3, no tensors, no entries.
        let header = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &[0; 16]].concat();
        let file = self.path("echo.gguf");
        std::fs::write(&file, header).unwrap();
        file
    }

    fn add_model(&self, data_dir: &str, name: &str, file: &Path) {
        let file = file.to_str().unwrap();
        self.run(&["--data-dir", data_dir, "models", "add", file, "--name", name]).success();
    }
}

/// One node of the network, which can die and come back.
pub(crate) struct Peer<'a> {
    network: &'a Network,
    name: &'static str,
    gateway: Option<u16>,
    arguments: Vec<String>,
    node: Option<Node>,
}

impl Peer<'_> {
    /// Starts it, after it has ended.
    pub(crate) fn start(&mut self) {
        let arguments: Vec<_> = self.arguments.iter().map(String::as_str).collect();
        self.node = Some(self.network.sandbox.start(&arguments));
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        drop(self.node.take());
    }

    /// Asks it to end and waits for its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.node().signal("TERM");
        self.node.take().unwrap().wait()
    }

    /// The same, with what it wrote to its log.
    pub(crate) fn terminate_with_log(&mut self) -> (Option<i32>, String) {
        self.node().signal("TERM");
        self.node.take().unwrap().wait_with_log()
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.node.take().unwrap().wait()
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().unwrap()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.network.path(self.name)
    }

    /// A command about this node.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.network.run(&[&["--data-dir", self.name], arguments].concat())
    }

    /// A command about this node, to be started by the caller.
    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command =
            self.network.sandbox.command(&[&["--data-dir", self.name], arguments].concat());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command
    }

    /// What a command about this node prints with `--json`.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let printed = self.run(&[arguments, &["--json"]].concat()).success();
        serde_json::from_str(&printed).unwrap()
    }

    /// `chat/completions` at its gateway.
    pub(crate) fn chat(&self, body: &Value) -> Answer {
        self.chat_with(&[], body)
    }

    /// The same with more headers.
    pub(crate) fn chat_with(&self, headers: &[(&str, &str)], body: &Value) -> Answer {
        let body = body.to_string();
        request(self.port(), "POST", "/v1/chat/completions", headers, body.as_bytes())
    }

    /// Port of its gateway.
    pub(crate) fn port(&self) -> u16 {
        self.gateway.unwrap()
    }

    /// What its channels have promised.
    pub(crate) fn promised(&self) -> u64 {
        let channels = self.ask(&["channel", "list"]);
        let promised = |channel: &Value| channel["promised_nano"].as_u64().unwrap();
        channels.as_array().unwrap().iter().map(promised).sum()
    }

    /// Its receipts, newest first.
    pub(crate) fn receipts(&self) -> Vec<cocoon_protocol::receipt::Receipt> {
        use cocoon_protocol::receipt::{Receipt, SignedReceipt};
        let listed = self.ask(&["receipt", "list", "--limit", "1000"]);
        let decode = |file: &Value| {
            let bytes = hex::decode(file["signed"].as_str().unwrap()).unwrap();
            let signed = SignedReceipt::decode(&bytes).unwrap();
            signed.verify().unwrap();
            Receipt::decode(&signed.bytes).unwrap()
        };
        listed.as_array().unwrap().iter().map(decode).collect()
    }

    /// What its receipts say was paid.
    pub(crate) fn receipted(&self) -> u64 {
        self.receipts().iter().map(|receipt| receipt.price.as_nano()).sum()
    }
}
