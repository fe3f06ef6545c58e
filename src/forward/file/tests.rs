use super::*;
use crate::forward::body::Codec;
use crate::forward::testing::{batch_of, decoded};
use tempfile::TempDir;

fn settings(folder: &TempDir) -> FileSettings {
    FileSettings {
        path: folder.path().join("traces.jsonl"),
        format: Format::Json,
        is_compressed: false,
        rotation: None,
        append: false,
        flush_interval: Duration::from_secs(1),
    }
}

fn request(seq: u64) -> Body {
    let frame = batch_of(seq, 2).frame;
    let raw = decoded(&Body { codec: Codec::Zstd, segments: vec![frame], spans: 2 });
    Body { codec: Codec::Identity, segments: vec![raw.into()], spans: 2 }
}

async fn send(writer: &Writer, seq: u64) {
    assert!(matches!(writer.send(request(seq)).await.answer, Answer::Delivered { .. }));
}

#[tokio::test]
async fn each_request_is_a_line_of_json() {
    let folder = TempDir::new().unwrap();
    let writer = Writer::new(&settings(&folder), Signal::Traces, &Files::default());
    send(&writer, 1).await;
    send(&writer, 2).await;
    let text = std::fs::read_to_string(folder.path().join("traces.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["name"], "2/1");
    // A line that a crash cut in two spoils no other.
    let path = folder.path().join("traces.jsonl");
    std::fs::write(&path, "{\"resourceSpans\":[").unwrap();
    send(&Writer::new(&FileSettings { append: true, ..settings(&folder) }, Signal::Traces, &Files::default()), 3).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(text.lines().nth(1).unwrap()).is_ok(), "{text}");
    // Without `append` the file begins anew with the process.
    send(&Writer::new(&settings(&folder), Signal::Traces, &Files::default()), 3).await;
    assert_eq!(std::fs::read_to_string(folder.path().join("traces.jsonl")).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn compressed_requests_stand_behind_their_lengths() {
    let folder = TempDir::new().unwrap();
    for format in [Format::Json, Format::Proto] {
        let settings = FileSettings { format, is_compressed: true, ..settings(&folder) };
        let writer = Writer::new(&settings, Signal::Traces, &Files::default());
        send(&writer, 1).await;
        send(&writer, 2).await;
        let mut rest = std::fs::read(folder.path().join("traces.jsonl")).unwrap();
        for seq in [1, 2] {
            let behind = rest.split_off(4);
            let len = u32::from_be_bytes(rest.as_slice().try_into().unwrap()) as usize;
            let plain = zstd::decode_all(&behind[..len]).unwrap();
            let raw = request(seq).segments.concat();
            match format {
                Format::Proto => assert_eq!(plain, raw),
                Format::Json => assert_eq!(plain, message_to_json(request_of(Signal::Traces), &raw).unwrap()),
            }
            rest = behind[len..].to_vec();
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn a_full_file_moves_aside_and_the_oldest_go() {
    let folder = TempDir::new().unwrap();
    let rotation = Rotation { max_megabytes: 1, max_days: 0, max_backups: 2 };
    let settings = FileSettings { rotation: Some(rotation), ..settings(&folder) };
    std::fs::write(folder.path().join("traces-notes.jsonl"), "not ours").unwrap();
    let mut open = None;
    for _ in 0..5 {
        append(&settings, &mut open, &vec![b'x'; 600_000]).unwrap();
        // Names tell milliseconds apart.
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names.len(), 4, "two rotated ones, the current one, and what is not ours: {names:?}");
    assert!(names.contains(&"traces-notes.jsonl".to_owned()) && names.contains(&"traces.jsonl".to_owned()));
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_tried_again() {
    let folder = TempDir::new().unwrap();
    let settings = FileSettings { path: folder.path().join("missing/traces.jsonl"), ..settings(&folder) };
    let writer = Writer::new(&settings, Signal::Traces, &Files::default());
    let answer = writer.send(request(1)).await.answer;
    assert!(matches!(&answer, Answer::Retry { why, .. } if why.contains("missing/traces.jsonl")), "{answer:?}");
    std::fs::create_dir(folder.path().join("missing")).unwrap();
    send(&writer, 1).await;
}

#[tokio::test]
async fn writers_of_one_exporter_share_its_file() {
    let (folder, files) = (tempfile::tempdir().unwrap(), Files::default());
    let writers = [0; 3].map(|_| Writer::new(&settings(&folder), Signal::Traces, &files));
    for (writer, seq) in writers.iter().zip(1..) {
        send(writer, seq).await;
    }
    let written = std::fs::read_to_string(&settings(&folder).path).unwrap();
    assert_eq!(written.lines().count(), 3, "nobody begins the file anew: {written}");
    drop(writers);
    assert!(files.0.lock().unwrap().values().all(|file| file.strong_count() == 0));
}
