//! The `file` exporter: a file that grows by one request at a time, in the Collector's formats.
//!
//! It is a destination like the others: with a cursor, so that what it did not write before a restart it writes after,
//! and what the disk refuses is tried again. A request counts as sent once the kernel has its bytes; it is not synced, so
//! a power cut may cost the file's end, as in a Collector. A request that a crash cut in two is written again behind its
//! broken line: whoever reads the file skips that.

pub mod settings;

use super::answer::Answer;
use super::body::Body;
use super::link::{Reply, Transport};
use crate::otlp::Signal;
use crate::otlp::items::request_of;
use crate::otlp::json::message_to_json;
use jiff::Timestamp;
use settings::{FileSettings, Format, Rotation};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

const ZSTD_LEVEL: i32 = 3;
/// In names of rotated files, between name and extension; sorts by time.
const ROTATED_AT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

pub(super) struct Writer {
    settings: FileSettings,
    signal: Signal,
    file: Shared,
}

/// The files of the process: exporters of several pipelines that are one in the configuration write into one, record by
/// record.
#[derive(Clone, Default)]
pub(super) struct Files(Arc<Mutex<HashMap<PathBuf, WeakFile>>>);

type Shared = Arc<Mutex<Option<Open>>>;
type WeakFile = Weak<Mutex<Option<Open>>>;

impl Files {
    /// The file at a path, which others may be writing into. It closes with the last of them.
    fn at(&self, path: &Path) -> Shared {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|_, file| file.strong_count() > 0);
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return file;
        }
        let file = Shared::default();
        files.insert(path.to_owned(), Arc::downgrade(&file));
        file
    }
}

/// What is open is no business of logs.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Files")
    }
}

/// The file at work.
struct Open {
    file: File,
    bytes: u64,
}

impl Writer {
    pub(super) fn new(settings: &FileSettings, signal: Signal, files: &Files) -> Self {
        Self { settings: settings.clone(), signal, file: files.at(&settings.path) }
    }
}

impl Transport for Writer {
    async fn send(&self, body: Body) -> Reply {
        let (settings, signal, file) = (self.settings.clone(), self.signal, Arc::clone(&self.file));
        let written = tokio::task::spawn_blocking(move || {
            let record = record(&settings, signal, &body.segments.concat())?;
            let mut open = file.lock().unwrap_or_else(PoisonError::into_inner);
            append(&settings, &mut open, &record)
        });
        let why = match written.await {
            Ok(Ok(())) => {
                let answer = Answer::Delivered { rejected_spans: 0, message: String::new() };
                return Reply { name: "OK".into(), answer };
            }
            Ok(Err(error)) => format!("{}: {error}", self.settings.path.display()),
            Err(error) => error.to_string(),
        };
        Reply { name: "file".into(), answer: Answer::Retry { after: None, why } }
    }
}

/// A request as it stands in the file.
fn record(settings: &FileSettings, signal: Signal, request: &[u8]) -> io::Result<Vec<u8>> {
    let plain = match settings.format {
        Format::Json => message_to_json(request_of(signal), request).map_err(io::Error::other)?,
        Format::Proto => request.to_vec(),
    };
    let framed = match (settings.is_compressed, settings.format) {
        (true, _) => zstd::bulk::compress(&plain, ZSTD_LEVEL)?,
        (false, Format::Proto) => plain,
        (false, Format::Json) => {
            let mut line = plain;
            line.push(b'\n');
            return Ok(line);
        }
    };
    let len = u32::try_from(framed.len()).map_err(io::Error::other)?;
    Ok([len.to_be_bytes().as_slice(), &framed].concat())
}

/// Appends a whole record, or nothing as far as the next one is concerned.
fn append(settings: &FileSettings, open: &mut Option<Open>, record: &[u8]) -> io::Result<()> {
    if let (Some(rotation), Some(current)) = (&settings.rotation, open.as_ref())
        && current.bytes > 0
        && current.bytes + record.len() as u64 > rotation.max_megabytes * 1_000_000
    {
        *open = None;
        rotate(&settings.path, rotation, Timestamp::now())?;
    }
    let current = match open {
        Some(current) => current,
        None => open.insert(begin(settings)?),
    };
    let before = current.bytes;
    if let Err(error) = current.file.write_all(record) {
        // What of it went out must not stand before the next try.
        let is_undone = current.file.set_len(before).and_then(|()| current.file.seek(SeekFrom::End(0)).map(drop));
        if is_undone.is_err() {
            *open = None;
        }
        return Err(error);
    }
    current.bytes += record.len() as u64;
    Ok(())
}

fn begin(settings: &FileSettings) -> io::Result<Open> {
    let keep = settings.append || settings.rotation.is_some();
    let mut options = OpenOptions::new();
    options.create(true).read(true).write(true).truncate(!keep);
    let mut file = options.open(&settings.path)?;
    let mut bytes = file.seek(SeekFrom::End(0))?;
    if bytes > 0 && settings.format == Format::Json && !settings.is_compressed {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // A crash cut a line in two; the next one stands for itself.
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(Open { file, bytes })
}

/// Moves the file aside and lets go of those that are too old or too many.
fn rotate(path: &Path, rotation: &Rotation, now: Timestamp) -> io::Result<()> {
    let name =
        |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default();
    let (stem, extension) = (name(path.file_stem()), name(path.extension()));
    let extension = if extension.is_empty() { extension } else { format!(".{extension}") };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let prefix = format!("{stem}-");
    std::fs::rename(path, folder.join(format!("{prefix}{}{extension}", now.strftime(ROTATED_AT))))?;
    let mut rotated: Vec<(Timestamp, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        let time = name(file.file_name());
        let time = time.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(&extension)).and_then(rotated_at);
        rotated.extend(time.map(|time| (time, file)));
    }
    rotated.sort();
    let count_max = if rotation.max_backups == 0 { usize::MAX } else { rotation.max_backups as usize };
    let too_many = rotated.len().saturating_sub(count_max);
    let age_max = Duration::from_secs(u64::from(rotation.max_days) * 24 * 3600);
    let oldest_kept = (rotation.max_days > 0).then(|| now.checked_sub(age_max).unwrap_or(Timestamp::MIN));
    for (index, (time, file)) in rotated.iter().enumerate() {
        if index < too_many || oldest_kept.is_some_and(|oldest| *time < oldest) {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// The time in a rotated file's name, UTC.
fn rotated_at(text: &str) -> Option<Timestamp> {
    let time = jiff::civil::DateTime::strptime(ROTATED_AT, text).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests;
