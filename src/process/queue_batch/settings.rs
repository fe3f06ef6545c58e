//! Settings of the `queue_batch` processor, with the Collector's names, defaults and checks.

use crate::config::{Declaration, Role, Section, Shape, Stability, WhenNull};
use crate::process::batch::settings::BatchSettings;
use crate::process::settings::ProcessorSettings;
use std::time::Duration;

/// The `queue_batch` processor.
pub const DECLARATION: Declaration<ProcessorSettings> = Declaration::new(
    "queue_batch",
    Stability::Alpha,
    "Says how stored spans are grouped when they are forwarded; its queue is the spool.",
    |section| ProcessorSettings::QueueBatch(decode(section)),
)
.with_aliases(&["queuebatch"]);

const WHY: &str = "the spool is the queue: on disk, bounded in bytes and by age (extensions::spanreel::spool)";

/// `processors::queue_batch`, as the grouping that it asks for. Without `batch` spans are grouped as the Collector groups
/// them there by default.
fn decode(section: &mut Section<'_>) -> BatchSettings {
    let consumers = section.accept_int("num_consumers");
    let queue_size = section.accept_int("queue_size");
    for (key, value) in [("num_consumers", consumers), ("queue_size", queue_size)] {
        if value.is_some_and(|value| value <= 0) {
            section.error(key, "must be above zero", "");
        }
    }
    let sizer = section.optional_text("sizer", crate::config::Secrecy::Open);
    let sizers = ["requests", "items", "bytes"];
    if let Some(other) = sizer.as_deref().filter(|sizer| !sizers.contains(sizer)) {
        section.error("sizer", format!("{other:?} is not one of its values"), format!("one of: {}", sizers.join(", ")));
    }
    if consumers.is_some() || queue_size.is_some() || sizer.is_some() {
        section.note("", format!("num_consumers, queue_size and sizer: accepted, without effect: {WHY}"));
    }
    section.accept("block_on_overflow", Shape::Bool);
    section.inert("wait_for_result", Shape::Bool, "a client is answered once its spans are on disk");
    if section.reference("storage", Role::Extension).is_some() {
        section.note("storage", format!("accepted, without effect: {WHY}"));
    }
    section.optional("batch", WhenNull::On, group).unwrap_or(BatchSettings {
        send_batch_size: 8192,
        timeout: Duration::from_millis(200),
        send_batch_max_size: 0,
    })
}

fn group(section: &mut Section<'_>) -> BatchSettings {
    let settings = BatchSettings {
        timeout: section.duration("flush_timeout", Duration::from_millis(200)),
        send_batch_size: section.u32("min_size", 8192),
        send_batch_max_size: section.u32("max_size", 0),
    };
    let why = "batches are measured in spans here; a request never exceeds 4 MiB in any case";
    section.only("sizer", &["items", ""], why, "write sizer: items, with sizes in spans");
    section.section("partition", |section| {
        let why = "batches are not kept apart by client metadata";
        section.only("metadata_keys", &["[]", ""], why, "remove it; one instance per tenant keeps tenants apart");
        section.accept("cache_size", Shape::Int);
        section.accept("idle_timeout", Shape::Duration);
    });
    if settings.timeout.is_zero() {
        section.error("flush_timeout", "must be above zero", "e.g. 200ms");
    }
    if settings.send_batch_max_size > 0 && settings.send_batch_max_size < settings.send_batch_size {
        section.error("max_size", format!("must be at least min_size, which is {}", settings.send_batch_size), "or 0");
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::testing::{decoded_settings, errors_of};

    fn sizes(text: &str) -> (u32, u32, u64) {
        let settings = decoded_settings(text, decode);
        (settings.send_batch_size, settings.send_batch_max_size, settings.timeout.as_millis() as u64)
    }

    #[test]
    fn sizes_mean_what_they_mean_in_the_collector() {
        assert_eq!(sizes("{}"), (8192, 0, 200));
        assert_eq!(sizes("batch:"), (8192, 0, 200));
        assert_eq!(sizes("batch: {min_size: 10, max_size: 20, flush_timeout: 1s, sizer: items}"), (10, 20, 1000));
    }

    #[test]
    fn settings_that_cannot_hold_are_refused_and_those_of_the_queue_are_noted() {
        let said = |text: &str| {
            errors_of(text, |section| {
                decode(section);
            })
        };
        assert!(said("batch: {sizer: bytes, min_size: 1000}")[0].contains("batches are measured in spans"));
        assert!(said("batch: {min_size: 5, max_size: 4}")[0].starts_with("batch::max_size: must be at least min_size"));
        assert_eq!(said("batch: {flush_timeout: 0}"), ["batch::flush_timeout: must be above zero (e.g. 200ms)"]);
        assert_eq!(said("queue_size: 0")[0], "queue_size: must be above zero");
        assert!(said("queue_size: 100")[0].contains("accepted, without effect: the spool is the queue"));
        assert!(said("sizer: spans")[0].starts_with("sizer: \"spans\" is not one of its values"));
    }
}
