//! What is lost when parts of the disk are, and what is not.

use super::*;
use crate::query::SpanSource as _;
use crate::spool::database::{BATCH, META};
use crate::spool::{Database, OpenError};
use crate::store::{Store, TailSettings};

#[test]
fn a_damaged_run_is_set_aside_and_everything_else_is_served() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for run in 0..3u64 {
        rig.append(&request((1..200).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    rig.close();
    // Every block of the second run's columns is overwritten; the end of the file says where what lies.
    let rig = Rig::open(&directory);
    let files = rig.spool.database().raw().live_files().unwrap();
    let mut columns: Vec<_> = files.into_iter().filter(|file| file.column_family_name == COLUMN).collect();
    columns.sort_by(|one, other| one.start_key.cmp(&other.start_key));
    let path = directory.path().join(columns[1].name.trim_start_matches('/'));
    rig.close();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..2_000].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();

    for _ in 0..2 {
        let rig = Rig::open(&directory);
        let view = rig.view();
        let segments: Vec<_> = view.segments().cloned().collect();
        let name = Field::Intrinsic(Intrinsic::Name);
        let read = |segment: &dyn Segment| segment.codes(&name).and_then(|_| segment.starts());
        let readable = segments.iter().filter(|segment| read(&***segment).is_ok()).count();
        assert_eq!(readable, 2);
        // It is known from now on, also after a restart.
        let ids: Vec<SegmentId> = view.segments().map(|segment| segment.id()).collect();
        assert_eq!(ids, [SegmentId(1, 0), SegmentId(3, 0)]);
        // What it had is not here.
        let missing_to = view.records().nth(1).unwrap().newest_received;
        assert!(view.whole_since() > Some(missing_to));
        assert_eq!(view.pieces(id(1)).unwrap().len(), 1);
        assert_eq!(view.pieces(id(2_001)).unwrap().len(), 1);
        assert_eq!(view.fragments(id(2_001), usize::MAX).unwrap().requests.len(), 1);
        rig.close();
    }
}

#[test]
fn verifying_reads_everything_and_names_what_is_damaged() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for run in 0..2u64 {
        rig.append(&request((1..200).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    rig.append(&request(vec![span(9_999, 1, 0, 1)]));
    let verification = rig.sealer.runs.verify(&rig.spool, |_| true).unwrap();
    assert_eq!((verification.runs, verification.traces, verification.spans, verification.batches), (2, 398, 398, 3));
    assert_eq!(verification.damages, []);
    let stopped = rig.sealer.runs.verify(&rig.spool, |_| false).unwrap();
    assert_eq!((stopped.runs, stopped.batches), (0, 0));

    // A batch whose frame is no longer one.
    let batch = rig.spool.database().family(crate::spool::database::BATCH);
    let mut value = rig.spool.database().raw().get_cf(batch, Seq(3).key()).unwrap().unwrap();
    value[crate::spool::Header::LEN..].fill(0);
    rig.spool.database().raw().put_cf(batch, Seq(3).key(), value).unwrap();
    let files = rig.spool.database().raw().live_files().unwrap();
    let mut traces: Vec<_> = files.into_iter().filter(|file| file.column_family_name == TRACE).collect();
    traces.sort_by(|one, other| one.start_key.cmp(&other.start_key));
    let path = directory.path().join(traces[0].name.trim_start_matches('/'));
    rig.close();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();
    let rig = Rig::open(&directory);
    let verification = rig.sealer.runs.verify(&rig.spool, |_| true).unwrap();
    let places: Vec<_> = verification.damages.iter().map(|damage| damage.place).collect();
    assert_eq!(places, [DamagedPlace::Run(1), DamagedPlace::Batch(3)]);
    assert_eq!(rig.view().segments().map(|segment| segment.id()).collect::<Vec<_>>(), [SegmentId(2, 0)]);
    rig.close();
}

/// Puts a device that cannot be read in the place of a file of traces that RocksDB has not opened; which run it is of.
#[cfg(target_os = "linux")]
fn break_device_under_a_run(rig: &Rig, directory: &TempDir) -> u64 {
    let open: BTreeSet<_> =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect();
    let files = rig.spool.database().raw().live_files().unwrap();
    let mut of_traces = files.into_iter().filter(|file| file.column_family_name == TRACE);
    let file = of_traces.find_map(|file| {
        let path = directory.path().canonicalize().unwrap().join(file.name.trim_start_matches('/'));
        (!open.contains(&path)).then_some((path, file.start_key?))
    });
    let (path, key) = file.expect("RocksDB opens few files at a start");
    std::fs::remove_file(&path).unwrap();
    // The first page of an address space is never there: reading it is an input/output error.
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    u64::from_be_bytes(key[4..12].try_into().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_the_device_cannot_read_stops_neither_sealing_nor_search_nor_retention() {
    const RUNS: u64 = 24;
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for run in 1..=RUNS {
        rig.append(&request((1..20).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
        rig.sealer.seal_all().unwrap();
    }
    rig.close();
    let mut rig = Rig::open(&directory);
    let bad = break_device_under_a_run(&rig, &directory);
    let trace = id(bad * 1_000 + 5);
    rig.sealer.runs.pin(trace).unwrap();
    // A late span of a trace in it: sealing looks whether its trace is split.
    rig.sealer.runs.forget_recent_traces();
    rig.append(&request(vec![span(bad * 1_000 + 5, 777, 0, 5)]));
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    assert_eq!(view.records().count() as u64, RUNS + 1);
    assert_eq!(view.segments().count() as u64, RUNS, "it is set aside");
    assert_eq!(rig.sealer.runs.metrics().damaged_runs.get(), 1);
    assert!(view.records().all(|run| run.damaged.is_none()), "the next start looks again");
    assert_eq!(view.pieces(trace).unwrap().len(), 1);
    assert_eq!(view.fragments(trace, usize::MAX).unwrap().requests.len(), 1);
    drop(view);

    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    while rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap() > 0 {}
    assert_eq!(rig.view().records().count(), 0);
    assert_eq!(rig.sealer.runs.metrics().pinned_unsaved.get(), 1);
    assert_eq!(rig.view().fragments(trace, usize::MAX).unwrap().requests.len(), 1, "the late span was kept");
    rig.close();
}

#[test]
fn spans_that_the_spool_drops_before_they_are_sealed_are_counted() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    rig.append(&request(vec![span(1, 1, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    for number in 2..6 {
        rig.append(&request(vec![span(number, number, 0, 1)]));
    }
    // As the budget would: the batches are gone, and the next one says what was before it.
    let batch = rig.spool.database().family(crate::spool::database::BATCH);
    for seq in [2u64, 3, 4] {
        rig.spool.database().raw().delete_cf(batch, Seq(seq).key()).unwrap();
    }
    rig.sealer.seal_all().unwrap();
    let view = rig.view();
    assert_eq!(view.account().lost.values().sum::<u64>(), 3);
    assert_eq!(view.account().sealed.values().sum::<u64>(), 2);
    assert!(view.may_hold(id(5)) && !view.may_hold(id(3)));
    rig.close();
}

/// The table files of a family, oldest keys first.
fn files_of(rig: &Rig, directory: &TempDir, family: &str) -> Vec<PathBuf> {
    let files = rig.spool.database().raw().live_files().unwrap();
    let mut files: Vec<_> = files.into_iter().filter(|file| file.column_family_name == family).collect();
    files.sort_by(|one, other| one.start_key.cmp(&other.start_key));
    files.iter().map(|file| directory.path().join(file.name.trim_start_matches('/'))).collect()
}

/// What may have become of a file while nobody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Missing,
    Empty,
    /// The last bytes say where everything else is.
    NoEnd,
    /// Of what is between the first blocks and the last bytes.
    NoIndex,
    Unreadable,
}

impl Harm {
    const ALL: [Self; 5] = [Self::Missing, Self::Empty, Self::NoEnd, Self::NoIndex, Self::Unreadable];

    fn befall(self, path: &Path) {
        const FOOTER_LEN: usize = 53;
        let mut bytes = std::fs::read(path).unwrap();
        let footer = bytes.len() - FOOTER_LEN;
        std::fs::remove_file(path).unwrap();
        match self {
            Self::Missing => return,
            // The first page of an address space is never there: reading it is an input/output error.
            Self::Unreadable => return std::os::unix::fs::symlink("/proc/self/mem", path).unwrap(),
            Self::Empty => bytes.clear(),
            Self::NoEnd => bytes[footer..].fill(0),
            Self::NoIndex => bytes[footer / 3..footer].fill(0x5a),
        }
        std::fs::write(path, bytes).unwrap();
    }
}

fn append_run(rig: &mut Rig, run: u64) {
    rig.append(&request((1..200).map(|number| span(run * 1_000 + number, number, 0, number)).collect()));
    rig.sealer.seal_all().unwrap();
}

#[test]
fn a_run_of_which_a_file_cannot_be_opened_is_set_aside_at_the_start_until_there_is_a_good_one() {
    for (family, of_harm) in [TRACE, COLUMN].into_iter().flat_map(|family| Harm::ALL.map(|harm| (family, harm))) {
        let directory = TempDir::new().unwrap();
        let mut rig = Rig::open(&directory);
        (0..3).for_each(|run| append_run(&mut rig, run));
        // This one is in the log alone.
        rig.append(&request(vec![span(9_000, 1, 0, 1)]));
        let path = files_of(&rig, &directory, family).swap_remove(1);
        let key = rig.view().records().nth(1).unwrap().key();
        let place = rig.spool.database().place_of_set_aside(family, &key.bytes());
        rig.close();
        let good = std::fs::read(&path).unwrap();
        of_harm.befall(&path);

        let mut rig = Rig::open(&directory);
        rig.sealer.seal_all().unwrap();
        rig.close();
        assert!(!path.exists(), "{family}: {of_harm:?}");
        assert_eq!(std::fs::symlink_metadata(&place).is_ok(), of_harm != Harm::Missing, "{family}: {of_harm:?}");
        // It is known from now on, and nothing else is missed.
        let rig = Rig::open(&directory);
        let view = rig.view();
        let ids: Vec<SegmentId> = view.segments().map(|segment| segment.id()).collect();
        assert_eq!(ids, [SegmentId(1, 0), SegmentId(3, 0), SegmentId(4, 0)], "{family}: {of_harm:?}");
        assert_eq!((view.summary().damaged_runs, rig.sealer.runs.metrics().damaged_runs.get()), (1, 1));
        for trace in [1, 2_001, 9_000] {
            assert_eq!(view.pieces(id(trace)).unwrap().len(), 1);
            assert_eq!(view.fragments(id(trace), usize::MAX).unwrap().requests.len(), 1);
        }
        assert_eq!(view.pieces(id(1_001)).unwrap().len(), 0);
        let verification = rig.sealer.runs.verify(&rig.spool, |_| true).unwrap();
        let places: Vec<_> = verification.damages.iter().map(|damage| damage.place).collect();
        assert_eq!(places, [DamagedPlace::Run(2)]);
        drop(view);
        rig.close();

        if of_harm != Harm::Missing {
            std::fs::remove_file(&place).unwrap();
        }
        std::fs::write(&place, &good).unwrap();
        let rig = Rig::open(&directory);
        let view = rig.view();
        assert_eq!(view.segments().count(), 4, "{family}: {of_harm:?}");
        assert_eq!(rig.sealer.runs.metrics().damaged_runs.get(), 0);
        assert_eq!(view.pieces(id(1_001)).unwrap().len(), 1);
        assert_eq!(view.fragments(id(1_001), usize::MAX).unwrap().requests.len(), 1);
        assert!(!place.exists());
        drop(view);
        rig.close();
    }
}

#[test]
fn several_damaged_files_cost_no_more_than_their_runs_and_go_with_them() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    (0..4).for_each(|run| append_run(&mut rig, run));
    // One trace of a run that will be damaged, and one that is in no run.
    rig.sealer.runs.pin(id(1_005)).unwrap();
    rig.sealer.runs.pin(id(77_777)).unwrap();
    let (traces, columns) = (files_of(&rig, &directory, TRACE), files_of(&rig, &directory, COLUMN));
    rig.close();
    Harm::NoEnd.befall(&traces[1]);
    Harm::NoEnd.befall(&columns[2]);
    Harm::Missing.befall(&columns[3]);
    Harm::NoIndex.befall(&traces[3]);
    let mut rig = Rig::open(&directory);
    assert_eq!(rig.view().segments().map(|segment| segment.id()).collect::<Vec<_>>(), [SegmentId(1, 0)]);
    assert_eq!(rig.view().summary().damaged_runs, 3);
    assert_eq!(rig.view().fragments(id(2_001), usize::MAX).unwrap().requests.len(), 0, "its times were columns");
    assert_eq!(std::fs::read_dir(directory.path().join("damaged")).unwrap().count(), 3);

    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    while rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap() > 0 {}
    assert_eq!(rig.view().records().count(), 0);
    let unsaved = rig.sealer.runs.metrics().pinned_unsaved.get();
    assert_eq!(unsaved, 1 + 2, "one was in the second run; whether the fourth had any of the two nobody can tell");
    assert_eq!(std::fs::read_dir(directory.path().join("damaged")).unwrap().count(), 0);
    rig.close();
}

#[test]
fn a_directory_with_a_damaged_run_is_looked_into_without_changing_it() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    (0..3).for_each(|run| append_run(&mut rig, run));
    let path = files_of(&rig, &directory, COLUMN).swap_remove(1);
    rig.close();
    Harm::NoEnd.befall(&path);
    let harmed = std::fs::read(&path).unwrap();
    let database = Database::open_read_only(directory.path(), crate::spool::Memory::default()).unwrap();
    let runs = Runs::open(database, Metrics::default(), crate::store::runs::Memory::default()).unwrap();
    let view = runs.view();
    let readable = view.segments().filter(|segment| segment.traces().is_ok()).count();
    assert_eq!((view.records().count(), readable), (3, 2));
    assert_eq!(view.fragments(id(2_001), usize::MAX).unwrap().requests.len(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), harmed);
    assert!(!directory.path().join("damaged").exists());
}

#[test]
fn a_damaged_file_of_the_spool_or_of_its_records_is_named_with_the_remedy_and_stays_where_it_is() {
    for (family, of_harm) in [BATCH, META].into_iter().flat_map(|family| Harm::ALL.map(|harm| (family, harm))) {
        let directory = TempDir::new().unwrap();
        let mut rig = Rig::open(&directory);
        append_run(&mut rig, 0);
        rig.append(&request(vec![span(9_000, 1, 0, 1)]));
        let database = rig.spool.database();
        database.raw().flush_cf(database.family(family)).unwrap();
        let path = files_of(&rig, &directory, family).swap_remove(0);
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        rig.close();
        let good = std::fs::read(&path).unwrap();
        of_harm.befall(&path);
        for _ in 0..2 {
            let error = Database::open(directory.path(), u64::MAX, crate::spool::Memory::default()).err().unwrap();
            let text = error.to_string();
            assert!(matches!(&error, OpenError::DamagedFile { file, .. } if *file == name), "{of_harm:?}: {text}");
            assert!(text.contains("put that file back from a copy"), "{text}");
        }
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, good).unwrap();
        let rig = Rig::open(&directory);
        assert_eq!(rig.spool.trace_batch(Seq(2)).unwrap().unwrap().header.spans, 1);
        assert!(rig.view().may_hold(id(1)));
        rig.close();
    }
}

#[test]
fn a_batch_that_the_device_cannot_read_ends_neither_searching_nor_sealing() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for number in 1..=3 {
        rig.append(&request(vec![span(number, number, 0, 1)]));
    }
    let store = Store::new(rig.spool.clone(), Arc::new(rig.sealer.runs.clone()), TailSettings::default());
    let rows = || {
        let found = store.searchable()?;
        Ok(found.segments(0, u64::MAX).iter().map(|segment| segment.rows()).sum::<usize>())
    };
    let searched: Result<usize, crate::query::SourceError> = rows();
    assert_eq!(searched.unwrap(), 3);
    rig.spool.fail_reads_of(Seq(2));
    assert!(matches!(rig.sealer.seal_all(), Err(SealError::Spool(_))), "it may yet be read");
    let fresh = Store::new(rig.spool.clone(), Arc::new(rig.sealer.runs.clone()), TailSettings::default());
    assert!(fresh.searchable().is_err());
    while rig.sealer.seal_all().is_err() {
        rig.spool.let_time_pass_for_unreadable();
    }
    assert_eq!(rig.spool.unreadable_batches(), 1, "it is counted once");
    let view = rig.view();
    assert_eq!((view.account().sealed.values().sum::<u64>(), view.account().lost.values().sum::<u64>()), (2, 1));
    assert_eq!(rig.sealer.runs.metrics().unsealed_lost_spans.get(), 1);
    assert!(view.may_hold(id(1)) && view.may_hold(id(3)) && !view.may_hold(id(2)));
    for store in [&store, &fresh] {
        let found = store.searchable().unwrap();
        assert_eq!(found.segments(0, u64::MAX).iter().map(|segment| segment.rows()).sum::<usize>(), 2);
    }
    drop((view, store, fresh));
    rig.close();
}

#[test]
fn spans_are_counted_as_lost_even_where_nothing_is_left_to_make_a_run_of() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    for number in 1..=2 {
        rig.append(&request(vec![span(number, number, 0, 1)]));
        let batch = rig.spool.database().family(BATCH);
        let mut value = rig.spool.database().raw().get_cf(batch, Seq(number).key()).unwrap().unwrap();
        value[crate::spool::Header::LEN..].fill(0);
        rig.spool.database().raw().put_cf(batch, Seq(number).key(), value).unwrap();
    }
    rig.sealer.seal_all().unwrap();
    assert_eq!(rig.sealer.runs.metrics().unsealed_lost_spans.get(), 1, "the next batch tells of the other one");
    rig.append(&request(vec![span(3, 3, 0, 1)]));
    rig.sealer.seal_all().unwrap();
    assert_eq!(rig.sealer.runs.metrics().unsealed_lost_spans.get(), 2);
    assert_eq!(rig.view().account().lost.values().sum::<u64>(), 2);
    rig.close();
}

#[test]
fn verifying_reads_the_index_the_records_and_the_copies_of_pinned_traces() {
    let directory = TempDir::new().unwrap();
    let mut rig = Rig::open(&directory);
    append_run(&mut rig, 0);
    rig.sealer.runs.pin(id(5)).unwrap();
    rig.sealer.retention.settings.age_max = Some(Duration::ZERO);
    assert_eq!(rig.sealer.retention.keep(&rig.sealer.runs, &rig.spool).unwrap(), 1);
    let database = rig.spool.database().clone();
    let (dict, meta) = (database.family(crate::spool::database::DICT), database.family(META));
    database.raw().put_cf(dict, b"a page", [7; 1_000]).unwrap();
    let damages = |rig: &Rig| -> Vec<DamagedPlace> {
        let verification = rig.sealer.runs.verify(&rig.spool, |_| true).unwrap();
        verification.damages.iter().map(|damage| damage.place).collect()
    };
    assert_eq!(damages(&rig), []);
    let mut copies =
        database.raw().iterator_cf(meta, rocksdb::IteratorMode::From(b"pinned/", rocksdb::Direction::Forward));
    let (key, mut copy) = copies.next().unwrap().unwrap();
    drop(copies);
    let len = copy.len();
    copy[len / 2..].fill(0);
    database.raw().put_cf(meta, key, copy).unwrap();
    assert_eq!(damages(&rig), [DamagedPlace::Pinned(id(5))]);

    for family in [dict, meta] {
        database.raw().flush_cf(family).unwrap();
    }
    let paths = [crate::spool::database::DICT, META].map(|family| files_of(&rig, &directory, family).swap_remove(0));
    drop(database);
    rig.close();
    let whole = paths.each_ref().map(|path| std::fs::read(path).unwrap());
    // The first bytes are data: they are read when somebody asks for them.
    let mut dict = whole[0].clone();
    dict[5] ^= 0xff;
    std::fs::write(&paths[0], dict).unwrap();
    let rig = Rig::open(&directory);
    assert_eq!(damages(&rig), [DamagedPlace::Pinned(id(5)), DamagedPlace::Index]);
    rig.close();
}
