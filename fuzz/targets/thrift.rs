//! Any bytes as Thrift in the encoding that the first byte chooses: read to an end that lies within them, whatever
//! lengths, types and nesting they claim.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanreel_fuzz::receive::thrift::{Encoding, Kind, Reader, ThriftError};

/// Deeper ones are skipped, as by those who read formats.
const DEPTH_MAX: u32 = 8;

fuzz_target!(|data: &[u8]| {
    let Some((choice, message)) = data.split_first() else { return };
    let encoding = if choice & 1 == 0 { Encoding::Binary } else { Encoding::Compact };
    let within = |result: Result<(), ThriftError>| {
        if let Err(error) = result {
            assert!(error.offset <= message.len(), "{error}");
        }
    };
    // All of it skipped, and then all of it read.
    within(Reader::new(encoding, message).structure(|_, _| Ok(false)));
    let mut reader = Reader::new(encoding, message);
    if choice & 2 != 0 && reader.call().is_err() {
        return;
    }
    within(structure(&mut reader, 0));
});

fn structure(reader: &mut Reader<'_>, depth: u32) -> Result<(), ThriftError> {
    reader.structure(|reader, field| match field.kind {
        Kind::Bool => reader.bool().map(|_| true),
        Kind::I16 => reader.i16().map(|_| true),
        Kind::I32 => reader.i32().map(|_| true),
        Kind::I64 => reader.i64().map(|_| true),
        Kind::Double => reader.double().map(|_| true),
        Kind::Binary => reader.binary().map(|_| true),
        Kind::Struct if depth < DEPTH_MAX => structure(reader, depth + 1).map(|()| true),
        Kind::List if depth < DEPTH_MAX => {
            for _ in 0..reader.parts("a list", Kind::Struct)? {
                structure(reader, depth + 1)?;
            }
            Ok(true)
        }
        _ => Ok(false),
    })
}
