//! A value that is made when it is first asked for.

use std::cell::OnceCell;

#[derive(Debug, Clone)]
pub(super) struct Lazy<T>(OnceCell<T>);

impl<T> Lazy<T> {
    pub fn new() -> Self {
        Self(OnceCell::new())
    }

    pub fn made(value: T) -> Self {
        Self(OnceCell::from(value))
    }

    /// The value if anybody asked for it before.
    pub fn known(&self) -> Option<&T> {
        self.0.get()
    }

    pub fn get(&self, make: impl FnOnce() -> T) -> &T {
        self.0.get_or_init(make)
    }

    pub fn get_mut(&mut self, make: impl FnOnce() -> T) -> &mut T {
        self.0.get_or_init(make);
        match self.0.get_mut() {
            Some(value) => value,
            None => unreachable!("made one line above"),
        }
    }
}
