//! A child process: output to a file, bounded waits, dead when its owner is.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The kernel's clock ticks per second, as `/proc/PID/stat` counts CPU time (`USER_HZ`, 100 on every Linux).
const TICKS_PER_SECOND: u64 = 100;
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// As much of the output as a failing test shows.
const SHOWN_LINES_MAX: usize = 60;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Set once the process was waited for.
    status: Option<ExitStatus>,
}

/// What [`Process::thread_times`] gives.
pub struct ThreadTimes(HashMap<OsString, Duration>);

impl ThreadTimes {
    /// What all threads that are left took since `before`. What one took that ended meanwhile is missing: pools end threads
    /// that have had nothing to do for long.
    pub fn since(&self, before: &Self) -> Duration {
        let of = |(thread, time): (&OsString, &Duration)| {
            time.saturating_sub(before.0.get(thread).copied().unwrap_or_default())
        };
        self.0.iter().map(of).sum()
    }
}

impl Process {
    /// Starts `command` with both outputs appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let file: File = OpenOptions::new().create(true).append(true).open(log).expect("a log file can be opened");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file handle can be cloned")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started ({command:?}): {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned(), status: None }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written so far, on either output.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Waits for its end; panics after `bound`.
    pub fn wait(&mut self, bound: Duration) -> ExitStatus {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} has not ended within {bound:?}\n{}", self.name, self.last_lines());
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// `kill -9`, and waits until the kernel has let go of its files and ports.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // Fails only if it has ended meanwhile.
            let _ = self.child.kill();
            self.status = Some(self.child.wait().expect("a child can be waited for"));
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(id, signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// User and system time of all its threads so far.
    pub fn user_and_system_time(&self) -> (Duration, Duration) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("/proc is readable");
        // The second field is the name in parentheses and may contain anything; utime and stime are fields 14 and 15.
        let (_, rest) = stat.rsplit_once(") ").expect("the format of /proc/PID/stat");
        let time = |field: usize| {
            let ticks: u64 =
                rest.split(' ').nth(field).and_then(|ticks| ticks.parse().ok()).expect("a number of ticks");
            Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
        };
        (time(11), time(12))
    }

    /// CPU time so far, thread by thread, to the nanosecond: ticks of [`Process::user_and_system_time`] are 10 ms.
    pub fn thread_times(&self) -> ThreadTimes {
        let mut times = HashMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("/proc is readable").flatten() {
            // A thread that ends meanwhile has no file any more.
            let Ok(text) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok()).expect("a number of nanoseconds");
            times.insert(thread.file_name(), Duration::from_nanos(nanos));
        }
        ThreadTimes(times)
    }

    /// The largest resident set it ever had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The resident set now, in bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Of it what is no file's: heap and stacks. Pages of the program come and go as the kernel likes.
    pub fn anonymous_memory(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("/proc is readable");
        let line = status.lines().find(|line| line.starts_with(field)).expect("a field of /proc/PID/status");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
    }

    /// Bytes that it caused to be written to the disk so far.
    pub fn written_bytes(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.id())).expect("/proc is readable");
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("a field of /proc/PID/io");
        line.parse().expect("a number of bytes")
    }

    pub fn last_lines(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let shown = &lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..];
        format!("--- last lines of {} ---\n{}\n---", self.name, shown.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
    }
}
