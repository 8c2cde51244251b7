//! What a mount costs, beside the native file system, a bare FUSE append, and the same checks in process.
//!
//! `cargo bench --bench mount [-- --short]` prints one Markdown report. Every figure is a median over
//! rounds with the smallest and largest round behind it; compare ratios within one run.
#![allow(clippy::unwrap_used)] // a benchmark that cannot go on stops

mod append;
mod bare;
mod broadcast;
mod claim;
mod ordinary;
mod read;
mod start;
mod world;

use std::time::Duration;

/// How much of everything.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) rounds: usize,
    pub(crate) appends: usize,
    pub(crate) handoffs: usize,
    pub(crate) read_mib: usize,
    pub(crate) lines: usize,
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--short");
    let scale = if short {
        Scale { rounds: 3, appends: 500, handoffs: 300, read_mib: 64, lines: 20_000 }
    } else {
        Scale { rounds: 7, appends: 4_000, handoffs: 10_000, read_mib: 1024, lines: 1_000_000 }
    };
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("# Benchmark\n");
    println!("{} rounds a figure; median (smallest to largest round).\n", scale.rounds);
    let section = |name: &str, report: fn(Scale)| {
        if named.is_empty() || named.iter().any(|n| n == name) {
            report(scale);
        }
    };
    section("append", append::report);
    section("broadcast", broadcast::report);
    section("handoffs", claim::report);
    section("ordinary", ordinary::report);
    section("read", read::report);
    section("start", start::report);
}

/// Middle, smallest and largest of some figures.
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut figures: Vec<f64>) -> Self {
        assert!(!figures.is_empty());
        figures.sort_by(f64::total_cmp);
        Spread { median: figures[figures.len() / 2], min: figures[0], max: figures[figures.len() - 1] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.median < 10.0 {
            2
        } else if self.median < 100.0 {
            1
        } else {
            0
        };
        write!(f, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.min, self.max)
    }
}

/// The given share of sorted latencies, in microseconds.
pub(crate) fn percentile(latencies: &mut [Duration], share: f64) -> f64 {
    latencies.sort();
    let at = ((latencies.len() as f64 * share) as usize).min(latencies.len() - 1);
    latencies[at].as_secs_f64() * 1e6
}
