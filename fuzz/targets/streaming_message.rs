//! Any bytes as the request of each RPC of `tempopb.StreamingQuerier`: understood within its limits, or refused with a text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::query;

fuzz_target!(|bytes: &[u8]| query::message(bytes));
