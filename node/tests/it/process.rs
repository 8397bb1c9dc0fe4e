//! Running `cocoon-node` in a folder of its own, without this machine's settings.
//!
//! Owns: the isolation from the user's environment, and the end of every process it starts.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// A folder with a home in it, gone at the end.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path in the sandbox.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The data folder that a node has here by default.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("home/.local/share/cocoon")
    }

    /// The program with these arguments, and no variable but `HOME`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon-node"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.path("home"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(arguments).output().unwrap())
    }

    /// Starts a bare node and waits until it says that it runs.
    pub(crate) fn start(&self, arguments: &[&str]) -> Node {
        Node::start(self.command(arguments))
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The standard output of a run that must have succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The standard error of a run that must have ended with this code, and printed no data.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        self.stderr
    }
}

/// A running node; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Node {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&log);
        let keep = move |line: &str| kept.lock().unwrap().extend([line, "\n"]);
        let running = lines.by_ref().map_while(Result::ok).any(|line| {
            keep(&line);
            line.contains("the node runs")
        });
        // Whatever else it says must not fill the pipe and stop it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| keep(&line)));
        let node = Self { child, log };
        assert!(running, "the node did not start:\n{}", node.log());
        node
    }

    /// What it has written to its log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the node to end by itself.
    pub(crate) fn wait(self) -> Option<i32> {
        self.wait_with_log().0
    }

    /// The same, with what it wrote to its log.
    pub(crate) fn wait_with_log(mut self) -> (Option<i32>, String) {
        (self.child.wait().unwrap().code(), self.log())
    }

    /// Sends a signal by its name, as a user would.
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.id().to_string()).status();
        assert!(kill.unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
