//! Converters that hash, and hexadecimal digits.

use std::borrow::Cow;

use ring::digest;

use super::TEXT;
use crate::process::ottl::failure::Failure;
use crate::process::ottl::frame::View;
use crate::process::ottl::functions::{Arguments, Function, Parameter, Wants, converter, required};
use crate::process::ottl::like;
use crate::process::ottl::value::{Types, Value};

const TARGET: &[Parameter] = &[required("target", TEXT)];

pub(super) const FUNCTIONS: [Function; 5] = [
    // FNV-1a of 64 bits, as a signed number.
    converter("FNV", TARGET, Types::INT, |arguments, view| {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let text = arguments.text(0, view)?;
        let hash = text.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
        Ok(Value::Int(hash as i64))
    }),
    // Of numbers the eight bytes they are.
    converter(
        "Hex",
        &[required("target", Wants::Value(like::SCALAR.or(Types::BYTES)))],
        Types::TEXT,
        |arguments, view| {
            let bytes = like::bytes(arguments.value(0, view)?)?.unwrap_or(Cow::Borrowed(&[]));
            Ok(Value::text(like::hex(&bytes)))
        },
    ),
    converter("SHA1", TARGET, Types::TEXT, |it, view| digested(&digest::SHA1_FOR_LEGACY_USE_ONLY, it, view)),
    converter("SHA256", TARGET, Types::TEXT, |arguments, view| digested(&digest::SHA256, arguments, view)),
    converter("SHA512", TARGET, Types::TEXT, |arguments, view| digested(&digest::SHA512, arguments, view)),
];

fn digested<'v, 'a>(
    algorithm: &'static digest::Algorithm,
    arguments: &'v Arguments,
    view: View<'v, 'a>,
) -> Result<Value<'v, 'a>, Failure> {
    let text = arguments.text(0, view)?;
    Ok(Value::text(like::hex(digest::digest(algorithm, text.as_bytes()).as_ref())))
}
