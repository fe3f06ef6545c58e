//! Any text: it is refused, or its tree survives being printed. Checking it, planning it and reading it leniently never
//! falls over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::{run, traceql};

fuzz_target!(|text: &str| {
    if let Ok(query) = traceql::parse(text) {
        if traceql::check(&query).is_ok() {
            run(&query);
        }
        let printed = query.to_string();
        assert_eq!(traceql::parse(&printed).as_ref(), Ok(&query), "{printed}");
    }
    if let Ok(Some(condition)) = traceql::lenient(text) {
        assert!(traceql::read(&format!("{{ {condition} }}")).is_ok(), "{condition}");
    }
    if let Ok(field) = traceql::field(text) {
        assert_eq!(traceql::field(&field.to_string()), Ok(field));
    }
});
