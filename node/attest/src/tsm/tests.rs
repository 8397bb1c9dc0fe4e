//! configfs-tsm with a test in the kernel's place: real files, and the kernel's rules about them.
//!
//! Owns: the fake tree, and every way in which the real one can fail.
//! Must not: run on the machine's own configfs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::attester::report_data;

/// What the fake kernel does wrong, and when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Another program writes to the entry in this many exchanges, from the first on.
    pub(crate) conflicts: u32,
    /// This many writes of report data are lost without an error, as configfs loses them.
    pub(crate) lost: u32,
    /// Reading the quote fails with this, this many times.
    pub(crate) quote: Option<(io::ErrorKind, u32)>,
    /// Every operation on a path that ends so is refused.
    pub(crate) denied: Option<&'static str>,
}

/// Makes the quote from the report data.
type Quoter = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

/// A tree of real files. What the kernel does by itself happens within the operation that causes it,
/// as it does in the kernel.
pub(crate) struct Tree {
    folder: tempfile::TempDir,
    provider: &'static str,
    quoter: Box<Quoter>,
    certificates: Option<Vec<u8>>,
    faults: Mutex<Faults>,
    /// Report data of each exchange, and the privilege levels written.
    seen: Mutex<(Vec<Vec<u8>>, Vec<String>)>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl Tree {
    pub(crate) fn new(
        provider: &'static str,
        quoter: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            provider,
            quoter: Box::new(quoter),
            certificates: None,
            faults: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn with_certificates(self, certificates: &[u8]) -> Self {
        Self { certificates: Some(certificates.to_vec()), ..self }
    }

    pub(crate) fn failing(self, faults: Faults) -> Self {
        Self { faults: Mutex::new(faults), ..self }
    }

    pub(crate) fn options(&self) -> TsmOptions {
        let lock_within = Duration::ZERO;
        TsmOptions { reports: self.reports(), privilege_level: None, lock_within }
    }

    fn reports(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn entries_left(&self) -> usize {
        std::fs::read_dir(self.folder.path()).unwrap().count()
    }

    fn bump(entry: &Path) {
        let path = entry.join("generation");
        let generation: u64 = std::fs::read_to_string(&path).unwrap().trim().parse().unwrap();
        std::fs::write(path, format!("{}\n", generation.wrapping_add(1))).unwrap();
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        match self.faults.lock().unwrap().denied {
            Some(end) if path.to_string_lossy().ends_with(end) => {
                Err(io::ErrorKind::PermissionDenied.into())
            }
            _ => Ok(()),
        }
    }

    fn answer(&self, entry: &Path, data: &[u8]) {
        std::fs::write(entry.join("outblob"), (self.quoter)(data)).unwrap();
    }
}

impl Kernel for Tree {
    fn create(&self, entry: &Path) -> io::Result<()> {
        self.check(&self.reports())?;
        Filesystem.create(entry)?;
        std::fs::write(entry.join("provider"), format!("{}\n", self.provider))?;
        std::fs::write(entry.join("generation"), format!("{}\n", u64::MAX))?;
        std::fs::write(entry.join("inblob"), "")?;
        std::fs::write(entry.join("outblob"), "")?;
        if let Some(certificates) = &self.certificates {
            std::fs::write(entry.join("privlevel"), "")?;
            std::fs::write(entry.join("auxblob"), certificates)?;
        }
        Ok(())
    }

    fn remove(&self, entry: &Path) -> io::Result<()> {
        // The kernel's attributes go with their entry.
        std::fs::remove_dir_all(entry)
    }

    fn read(&self, attribute: &Path, limit: usize) -> io::Result<Vec<u8>> {
        self.check(attribute)?;
        if attribute.ends_with("outblob") {
            let mut faults = self.faults.lock().unwrap();
            if let Some((kind, times @ 1..)) = faults.quote {
                faults.quote = Some((kind, times - 1));
                return Err(kind.into());
            }
            if std::fs::read(attribute.with_file_name("inblob"))?.is_empty() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
        Filesystem.read(attribute, limit)
    }

    fn write(&self, attribute: &Path, bytes: &[u8]) -> io::Result<()> {
        self.check(attribute)?;
        let entry = attribute.parent().unwrap();
        let mut faults = self.faults.lock().unwrap();
        if attribute.ends_with("inblob") {
            if faults.lost > 0 {
                faults.lost -= 1;
                return Ok(());
            }
            self.seen.lock().unwrap().0.push(bytes.to_vec());
            Filesystem.write(attribute, bytes)?;
            Self::bump(entry);
            self.answer(entry, bytes);
            if faults.conflicts > 0 {
                faults.conflicts -= 1;
                Self::bump(entry);
                self.answer(entry, b"another program's data");
            }
        } else {
            self.seen.lock().unwrap().1.push(String::from_utf8(bytes.to_vec()).unwrap());
            Filesystem.write(attribute, bytes)?;
            Self::bump(entry);
        }
        Ok(())
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<String>> {
        Filesystem.entries(folder)
    }
}

fn echo(provider: &'static str) -> Tree {
    Tree::new(provider, <[u8]>::to_vec)
}

fn report(tree: &Arc<Tree>) -> Result<TsmReport, TsmError> {
    let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(tree);
    let tsm = Tsm::with_kernel(tree.options(), kernel);
    let done = tsm.report(TsmProvider::Tdx, &report_data(7));
    assert_eq!(tree.entries_left(), 0, "the entry is removed, whatever happened");
    done
}

fn report_with(faults: Faults) -> (Result<TsmReport, TsmError>, Arc<Tree>) {
    let tree = Arc::new(echo("tdx_guest").failing(faults));
    (report(&tree), tree)
}

#[test]
fn report_data_goes_in_and_the_quote_comes_out() {
    let (done, tree) = report_with(Faults::default());
    let expected = report_data(7).as_bytes().to_vec();
    assert_eq!(done, Ok(TsmReport { quote: expected.clone(), certificates: Vec::new() }));
    assert_eq!(*tree.seen.lock().unwrap(), (vec![expected], Vec::new()));
}

#[test]
fn the_privilege_level_and_the_hosts_certificates_are_sev_snps() {
    for (level, written) in [(None, vec![]), (Some(2), vec!["2".to_owned()])] {
        let tree = Arc::new(echo("sev_guest").with_certificates(b"table"));
        let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(&tree);
        let options = TsmOptions { privilege_level: level, ..tree.options() };
        let report = Tsm::with_kernel(options, kernel).report(TsmProvider::Snp, &report_data(7));
        assert_eq!(report.unwrap().certificates, b"table");
        assert_eq!(tree.seen.lock().unwrap().1, written);
    }
    // A kernel whose driver has no levels cannot do what was asked, and says so.
    let tree = Arc::new(echo("sev_guest"));
    let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(&tree);
    let options = TsmOptions { privilege_level: Some(1), ..tree.options() };
    let refusal = Tsm::with_kernel(options, kernel).report(TsmProvider::Snp, &report_data(7));
    let (step, kind) = (TsmStep::PrivilegeLevel, io::ErrorKind::NotFound);
    assert_eq!(refusal, Err(TsmError::Failed { step, kind }));
}

#[test]
fn a_report_that_another_writer_may_have_spoilt_is_asked_for_again() {
    let (done, tree) = report_with(Faults { conflicts: 2, ..Faults::default() });
    assert_eq!(done.unwrap().quote, report_data(7).as_bytes());
    assert_eq!(tree.seen.lock().unwrap().0.len(), 3);
    let (done, _) = report_with(Faults { conflicts: 3, ..Faults::default() });
    assert_eq!(done, Err(TsmError::Conflict));
}

#[test]
fn a_write_that_configfs_lost_is_noticed() {
    let (done, _) = report_with(Faults { lost: 1, ..Faults::default() });
    assert_eq!(done.unwrap().quote, report_data(7).as_bytes());
    let (done, _) = report_with(Faults { lost: 3, ..Faults::default() });
    assert_eq!(done, Err(TsmError::Conflict));
}

#[test]
fn a_busy_quoting_service_is_asked_again_and_a_broken_one_is_not() {
    let failing = |kind, times| Faults { quote: Some((kind, times)), ..Faults::default() };
    for kind in [io::ErrorKind::ResourceBusy, io::ErrorKind::TimedOut, io::ErrorKind::Interrupted] {
        assert!(report_with(failing(kind, 2)).0.is_ok());
        let step = TsmStep::Quote;
        assert_eq!(report_with(failing(kind, 3)).0, Err(TsmError::Failed { step, kind }));
    }
    let (done, tree) = report_with(failing(io::ErrorKind::InvalidInput, 1));
    let (step, kind) = (TsmStep::Quote, io::ErrorKind::InvalidInput);
    assert_eq!(done, Err(TsmError::Failed { step, kind }));
    assert_eq!(tree.seen.lock().unwrap().0.len(), 1);
}

#[test]
fn another_vendors_driver_and_an_unknown_one_are_refused_before_anything_is_written() {
    for provider in ["sev_guest", "arm_cca_guest", ""] {
        let tree = Arc::new(echo(provider));
        let refusal = report(&tree).unwrap_err();
        let expected = TsmProvider::Tdx;
        assert_eq!(refusal, TsmError::WrongProvider { expected, found: provider.to_owned() });
        assert!(tree.seen.lock().unwrap().0.is_empty());
    }
    let kernel: Arc<dyn Kernel> = Arc::new(echo("sev_guest"));
    let options = TsmOptions { reports: "/nonexistent".into(), ..TsmOptions::default() };
    let missing = Tsm::with_kernel(options, kernel).provider();
    assert_eq!(missing, Err(TsmError::NoInterface { folder: "/nonexistent".into() }));
}

#[test]
fn what_is_not_permitted_is_named() {
    for (denied, step) in [
        ("provider", TsmStep::Provider),
        ("generation", TsmStep::Generation),
        ("inblob", TsmStep::ReportData),
        ("outblob", TsmStep::Quote),
    ] {
        let (done, _) = report_with(Faults { denied: Some(denied), ..Faults::default() });
        assert_eq!(done, Err(TsmError::Denied { step }));
    }
    let tree = echo("tdx_guest");
    let folder = tree.reports().to_string_lossy().into_owned();
    let faults = Faults { denied: Some(folder.leak()), ..Faults::default() };
    let refusal = report(&Arc::new(tree.failing(faults))).unwrap_err();
    assert_eq!(refusal, TsmError::Denied { step: TsmStep::Create });
    assert_eq!(
        refusal.to_string(),
        "not permitted to make a report entry; run the node as root in the guest"
    );
}

#[test]
fn what_the_kernel_gives_is_bounded_and_never_empty() {
    let oversized = |_: &[u8]| vec![1; 2 * limits::EVIDENCE_BYTES];
    let (step, limit) = (TsmStep::Quote, limits::EVIDENCE_BYTES);
    let tree = Arc::new(Tree::new("tdx_guest", oversized));
    assert_eq!(report(&tree), Err(TsmError::TooLarge { step, limit }));
    let tree = Arc::new(Tree::new("tdx_guest", |_: &[u8]| Vec::new()));
    assert_eq!(report(&tree), Err(TsmError::Empty));
    let table = vec![0; CERTIFICATES_BYTES + 1];
    let tree = Arc::new(echo("tdx_guest").with_certificates(&table));
    let (step, limit) = (TsmStep::Certificates, CERTIFICATES_BYTES);
    assert_eq!(report(&tree), Err(TsmError::TooLarge { step, limit }));
}

#[test]
fn another_process_of_the_node_is_waited_for_and_not_forever() {
    let tree = Arc::new(echo("tdx_guest"));
    let other = File::open(tree.folder.path()).unwrap();
    other.try_lock().unwrap();
    assert_eq!(report(&tree), Err(TsmError::Busy));
    other.unlock().unwrap();
    assert!(report(&tree).is_ok());

    // A holder that ends while we wait.
    other.lock().unwrap();
    let asked = Arc::new(AtomicBool::new(false));
    let waiter = {
        let (tree, asked) = (Arc::clone(&tree), Arc::clone(&asked));
        std::thread::spawn(move || {
            let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(&tree);
            let options = TsmOptions { lock_within: Duration::from_secs(600), ..tree.options() };
            let tsm = Tsm::with_kernel(options, kernel);
            asked.store(true, Ordering::SeqCst);
            tsm.report(TsmProvider::Tdx, &report_data(1))
        })
    };
    while !asked.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    assert!(
        tree.seen.lock().unwrap().0.len() == 1,
        "nothing is asked while another holds the lock"
    );
    other.unlock().unwrap();
    assert!(waiter.join().unwrap().is_ok());
}

#[test]
fn threads_take_turns_and_get_the_reports_that_they_asked_for() {
    let tree = Arc::new(echo("tdx_guest"));
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(&tree);
            let options = TsmOptions { lock_within: Duration::from_secs(600), ..tree.options() };
            let tsm = Tsm::with_kernel(options, kernel);
            std::thread::spawn(move || {
                (seed, tsm.report(TsmProvider::Tdx, &report_data(seed)).unwrap())
            })
        })
        .collect();
    for thread in threads {
        let (seed, report) = thread.join().unwrap();
        assert_eq!(report.quote, report_data(seed).as_bytes());
    }
    assert_eq!(tree.entries_left(), 0);
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let tree = Arc::new(echo("tdx_guest"));
    let foreign = tree.reports().join("another-program");
    tree.create(&tree.reports().join("cocoon-node-1")).unwrap();
    tree.create(&tree.reports().join(format!("cocoon-node-{}", std::process::id()))).unwrap();
    tree.create(&foreign).unwrap();
    let kernel: Arc<dyn Kernel> = Arc::<Tree>::clone(&tree);
    let tsm = Tsm::with_kernel(tree.options(), kernel);
    tsm.report(TsmProvider::Tdx, &report_data(7)).unwrap();
    assert_eq!(tree.entries_left(), 1, "what is not ours stays");
    assert!(foreign.exists());
}
