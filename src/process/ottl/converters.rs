//! Functions that give a value.

mod hashes;
mod kinds;
mod lists;
mod texts;
mod times;

use super::functions::{Function, Wants};
use super::value::Types;

const ANY: Wants = Wants::Value(Types::ANY);
const TEXT: Wants = Wants::Value(Types::TEXT);
const INT: Wants = Wants::Value(Types::INT);

pub(super) fn all() -> impl Iterator<Item = &'static Function> {
    texts::FUNCTIONS
        .iter()
        .chain(&kinds::FUNCTIONS)
        .chain(&lists::FUNCTIONS)
        .chain(&hashes::FUNCTIONS)
        .chain(&times::FUNCTIONS)
}
