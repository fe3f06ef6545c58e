//! The `spanreel` binary: one allocator for Rust and RocksDB, then the command line.

use std::process::ExitCode;

// Unprefixed symbols, so that RocksDB's C++ shares this heap and the memory budget sees both.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    spanreel::cli::main()
}
