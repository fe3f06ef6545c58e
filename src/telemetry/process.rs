//! The process's own figures under Prometheus' standard names.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's USER_HZ, which is 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

pub fn register(registry: &mut Registry) {
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("spanreel_build", "The running version", build);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    registry.register_collector(Box::new(Process { started }));
}

#[derive(Debug)]
struct Process {
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let start = ConstGauge::new(self.started);
        let help = "Start time, Unix seconds";
        start.encode(encoder.encode_descriptor("process_start_time_seconds", help, None, start.metric_type())?)?;
        if let Some(resident) = resident_bytes() {
            let resident = ConstGauge::new(resident as i64);
            let help = "Resident memory";
            resident.encode(encoder.encode_descriptor(
                "process_resident_memory_bytes",
                help,
                None,
                resident.metric_type(),
            )?)?;
        }
        if let Some(cpu) = cpu_seconds() {
            let cpu = ConstCounter::new(cpu);
            let help = "User and system CPU time";
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
        }
        Ok(())
    }
}

/// Resident memory; `None` without /proc.
pub fn resident_bytes() -> Option<u64> {
    vm_rss(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// In /proc/self/status and not in its neighbour statm, which counts in pages whose size differs by machine.
fn vm_rss(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses and may hold blanks; utime and stime are the 14th and 15th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((fields.next()?? + fields.next()??) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read() {
        assert_eq!(vm_rss("VmHWM:\t   20 kB\nVmRSS:\t   16 kB\nRssAnon:\t    8 kB\n"), Some(16 * 1024));
        assert_eq!(vm_rss("Name:\tspanreel\n"), None);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0));
    }
}
