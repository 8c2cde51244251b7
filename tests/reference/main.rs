//! Random operations by several agents, on a real mount and in a plain model side by side: every one
//! must end the same way, and the whole tree must be the same after it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod model;
mod operations;

use common::{Fixture, count_from_env};
use model::Model;
use operations::{Operation, Prepared, Real, operation};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn agrees(operations: &[Operation]) -> Result<(), TestCaseError> {
    let fixture = Fixture::new();
    let prepared = Prepared::new(&fixture);
    let mut real = Real::new(&fixture);
    let mut model = Model::default();
    for (n, operation) in operations.iter().enumerate() {
        let (seen, wanted) = real.apply(operation, &prepared, &mut model);
        prop_assert_eq!(seen, wanted, "operation {} {:?}", n, operation);
        prop_assert_eq!(
            real.content(&prepared, n % 3),
            model.content(),
            "after operation {} {:?}",
            n,
            operation
        );
    }
    drop(real);
    let verified = fixture.baton(&["verify", fixture.dir().to_str().expect("the path is UTF-8")]);
    prop_assert_eq!(verified.status, 0, "baton verify: {}{}", verified.stdout, verified.stderr);
    Ok(())
}

#[test]
fn the_mount_does_what_the_model_says() {
    let cases = count_from_env("BATON_TEST_CASES", 64) as u32;
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(operation(), 1..60), |operations| agrees(&operations))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_whole_handoff_is_in_the_model_too() {
    let life = [
        Operation::Publish { agent: 1, payload: 0, name: 0 },
        Operation::Publish { agent: 1, payload: 0, name: 1 },
        Operation::Rename { agent: 2, from: (0, 0), to: (1, 0) },
        Operation::Rename { agent: 0, from: (0, 0), to: (1, 0) },
        Operation::Rename { agent: 0, from: (0, 0), to: (1, 0) },
        Operation::Remount,
        Operation::Rename { agent: 0, from: (1, 0), to: (2, 1) },
        Operation::Publish { agent: 1, payload: 1, name: 0 },
        Operation::Unlink { agent: 1, state: 0, name: 0 },
    ];
    agrees(&life).unwrap_or_else(|failure| panic!("{failure}"));
}
