//! Any text as a parameter of a URL: a number, a time, a duration, a list of tags.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::query;

fuzz_target!(|text: &str| query::parameter(text));
