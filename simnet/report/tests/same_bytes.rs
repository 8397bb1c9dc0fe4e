//! Equal facts give equal bytes; other facts do not; the format changes nothing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, reason = "a stand-in")]
#[path = "../examples/synthetic/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::path::Path;

use network::Shape;
use simnet_report::{Destination, Format, Machine, Options, Recorder, Results, load, write};

const SHAPE: Shape = Shape { seed: 3, hosts: 120, seconds: 40, pace: 1.0 };

fn run(shape: Shape, destination: Destination, options: Options) -> Results {
    let mut recorder =
        Recorder::new(network::description(&shape, "plain"), destination, options).unwrap();
    let outcome = network::play(shape, &mut recorder);
    recorder.finish(&outcome).unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap());
    entries
        .filter(|it| it.file_name() != "machine.json" && it.path().is_file())
        .map(|it| (it.file_name().into_string().unwrap(), std::fs::read(it.path()).unwrap()))
        .collect()
}

fn written(shape: Shape, format: Format) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::Folder(folder.path().to_owned(), format);
    let results = run(shape, destination, Options::default());
    write(&results, &Machine::default(), folder.path()).unwrap();
    assert!(load(folder.path()).unwrap() == results, "what is read is not what was written");
    files(folder.path())
}

#[test]
fn the_same_facts_give_the_same_files() {
    for format in [Format::Parquet, Format::Csv] {
        let one = written(SHAPE, format);
        assert!(one == written(SHAPE, format), "{format:?}");
        assert!(one.keys().all(|it| !it.contains("partial")), "{:?}", one.keys());
        let other = written(Shape { seed: 4, ..SHAPE }, format);
        assert!(one["result.json"] != other["result.json"], "another seed, the same result");
    }
}

#[test]
fn hashes_do_not_depend_on_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = run(SHAPE, Destination::Nowhere, Options::default());
    for format in [Format::Parquet, Format::Csv] {
        let destination = Destination::Folder(folder.path().join(format!("{format:?}")), format);
        assert!(run(SHAPE, destination, Options::default()) == nowhere, "{format:?}");
    }
}

#[test]
fn thinning_keeps_figures_and_what_rows_stand_for() {
    let whole = run(SHAPE, Destination::Nowhere, Options::default());
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::Folder(folder.path().to_owned(), Format::Csv);
    let thinned = run(SHAPE, destination, Options { rows_before_thinning: 100 });
    assert_eq!(thinned.summary, whole.summary);
    let jobs =
        |results: &Results| results.tables.iter().find(|it| it.name == "jobs").unwrap().clone();
    assert_eq!(jobs(&thinned).stands_for, jobs(&whole).rows);
    assert!(jobs(&thinned).rows < jobs(&whole).rows);
    let csv = std::fs::read_to_string(folder.path().join("jobs.csv")).unwrap();
    let weights =
        csv.lines().skip(1).map(|it| it.split(',').nth(1).unwrap().parse::<u64>().unwrap());
    let (sum, all) = (weights.sum::<u64>(), jobs(&whole).rows);
    assert!(sum.abs_diff(all) <= all / 5, "{sum} for {all}");
}

#[test]
fn a_folder_that_cannot_be_written_is_said_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let destination = Destination::Folder(file.path().join("below"), Format::Parquet);
    let refused = Recorder::new(network::description(&SHAPE, ""), destination, Options::default());
    assert!(refused.unwrap_err().to_string().contains("could not be written"));
}

#[test]
fn an_interrupted_run_has_whole_files_that_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let destination = Destination::Folder(folder.path().to_owned(), Format::Csv);
    let about = network::description(&SHAPE, "plain");
    let mut recorder = Recorder::new(about, destination, Options::default()).unwrap();
    let mut outcome = network::play(Shape { seconds: 20, ..SHAPE }, &mut recorder);
    outcome.interrupted = true;
    write(&recorder.finish(&outcome).unwrap(), &Machine::default(), folder.path()).unwrap();
    let files = files(folder.path());
    assert!(files.keys().all(|it| !it.contains("partial")));
    assert!(files["jobs.csv"].ends_with(b"\n"));
    assert!(load(folder.path()).unwrap().ending.interrupted);
    assert!(String::from_utf8_lossy(&files["report.html"]).contains("was interrupted"));
}
