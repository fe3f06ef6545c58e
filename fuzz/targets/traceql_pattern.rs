//! Any pattern: it is refused or compiled, and matches without falling over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::traceql::pattern;

fuzz_target!(|input: (&str, &str)| {
    let (text, candidate) = input;
    if let Ok(compiled) = pattern::compile(text) {
        compiled.is_match(candidate);
    }
});
