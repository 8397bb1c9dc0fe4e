//! The pages open in a real browser without an error on the console and without a request to anywhere.
//!
//! Needs Chromium (`chromium` in Debian, which scripts/test installs where apt can); without it the test says
//! loudly that it was skipped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, reason = "a stand-in")]
#[path = "../examples/synthetic/network.rs"]
mod network;

use std::path::{Path, PathBuf};
use std::process::Command;

use network::Shape;
use simnet_report::{Comparison, Destination, Group, Options, Recorder, Results, html};

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |it| it.join(name)))
        .find(|it| it.is_file())
}

fn results(seed: u64, pace: f64) -> Results {
    let shape = Shape { seed, hosts: 120, seconds: 40, pace };
    let about = network::description(&shape, if pace > 1.0 { "slow" } else { "fast" });
    let mut recorder = Recorder::new(about, Destination::Nowhere, Options::default()).unwrap();
    let outcome = network::play(shape, &mut recorder);
    recorder.finish(&outcome).unwrap()
}

/// Opens the page and gives back its document, what it logged, and the network log.
fn open(browser: &Path, folder: &Path, page: &str) -> (String, String, String) {
    let file = folder.join("page.html");
    std::fs::write(&file, page).unwrap();
    let log = folder.join("net.json");
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .args(["--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=2000"])
        // What the browser does for itself is no request of the page.
        // It is not to reach anything either; what is asked for is in the log all the same.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .args(["--disable-background-networking", "--disable-component-update", "--no-first-run"])
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
        std::fs::read_to_string(&log).unwrap_or_default(),
    )
}

/// Requests of pages in a network log: those to anything but the file itself and inline data.
fn requests(log: &str) -> Vec<&str> {
    let urls = log.split("\"url\":\"").skip(1).filter_map(|it| it.split('"').next());
    urls.filter(|it| it.starts_with("http") || it.starts_with("ws"))
        .filter(|it| {
            !["google.com", "googleapis.com", "gstatic.com", "gvt1.com"]
                .iter()
                .any(|own| it.contains(own))
        })
        .collect()
}

#[test]
fn pages_open_without_an_error_and_without_a_request() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: no Chromium on this machine; the pages were not opened in a browser");
        return;
    };
    let report = results(1, 1.0);
    let groups = [1.0, 1.2].map(|pace| Group {
        label: format!("pace {pace}"),
        runs: vec![results(1, pace), results(2, pace)],
    });
    let pages = [
        (html::report(&report), "Lorenz curve"),
        (Comparison::of(groups.to_vec()).html(), "Means over seeds"),
    ];
    for (page, expected) in pages {
        let folder = tempfile::tempdir().unwrap();
        let (document, logged, network) = open(&browser, folder.path(), &page);
        assert!(document.contains(expected), "the page did not come up: {logged}");
        assert_eq!(document.matches("<svg").count(), page.matches("<svg").count());
        let console: Vec<_> = logged.lines().filter(|it| it.contains("CONSOLE")).collect();
        assert!(console.is_empty(), "{console:?}");
        assert_eq!(requests(&network), Vec::<&str>::new());
    }
}

#[test]
fn the_check_would_see_an_error_and_a_request() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = "<script>console.error('seen')</script><img src='http://127.0.0.1:9/picture.png'>";
    let (_, logged, network) = open(&browser, folder.path(), page);
    assert!(logged.lines().any(|it| it.contains("CONSOLE") && it.contains("seen")), "{logged}");
    assert!(!requests(&network).is_empty());
}

#[test]
fn pages_name_nothing_outside_themselves() {
    let page = html::report(&results(1, 1.0));
    for outside in
        ["src=", "href=\"http", "@import", "url(http", "<script", "<link rel=\"stylesheet"]
    {
        assert!(!page.contains(outside), "{outside}");
    }
    // The one address is the name of SVG itself.
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("http://www.w3.org/2000/svg").count() + page.matches("http-equiv").count()
    );
    assert_eq!(page.matches("<title id=").count(), page.matches("<svg").count());
    assert_eq!(page.matches("<desc id=").count(), page.matches("<svg").count());
}

#[test]
fn hostile_names_are_text() {
    let mut hostile = results(1, 1.0);
    hostile.about.scenario = "<script>alert(1)</script>\"'&".into();
    hostile.about.scenario_text = "</pre><script>".into();
    let page = html::report(&hostile);
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn a_run_in_which_nothing_happened_has_a_page() {
    let page = html::report(&Results {
        about: Default::default(),
        ending: Default::default(),
        summary: Default::default(),
        tables: Vec::new(),
        curves: Default::default(),
    });
    assert!(page.contains("All figures"));
    assert!(!page.contains("NaN") && !page.contains("inf"));
}
