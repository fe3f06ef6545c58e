//! Names that many waiting spans share: service names and what stands for services.

use std::collections::HashSet;
use std::sync::Arc;

/// A shared name.
pub type Symbol = Arc<str>;

/// One copy of each name in use.
#[derive(Debug, Default)]
pub struct Symbols {
    names: HashSet<Symbol, foldhash::fast::RandomState>,
}

/// Names beyond this many are not shared: their holders, whose number is bounded, keep copies of their own.
const NAMES_MAX: usize = 4_096;

impl Symbols {
    pub fn intern(&mut self, name: &str) -> Symbol {
        match self.names.get(name) {
            Some(symbol) => Arc::clone(symbol),
            None => self.add(name),
        }
    }

    #[cold]
    fn add(&mut self, name: &str) -> Symbol {
        let symbol = Symbol::from(name);
        if self.names.len() < NAMES_MAX {
            self.names.insert(Arc::clone(&symbol));
        }
        symbol
    }

    /// Drops what nobody holds, once there is much.
    pub fn tidy(&mut self) {
        if self.names.len() > NAMES_MAX / 2 {
            self.names.retain(|symbol| Arc::strong_count(symbol) > 1);
        }
    }
}
