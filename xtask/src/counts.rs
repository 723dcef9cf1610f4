//! Counts tests from what the test runners print.

/// Passed and failed tests, if `line` is the result line of a test runner. All three kinds are understood: that of
/// `cargo test`, of `cargo nextest`, and of the conformance runner.
pub(crate) fn in_line(line: &str) -> Option<Counts> {
    let line = line.trim_end();
    let is_cargo = line.starts_with("test result: ");
    let is_nextest = line.trim_start().starts_with("Summary [");
    let is_conformance = line.starts_with(|first: char| first.is_ascii_digit()) && line.ends_with(" failed");
    if !(is_cargo || is_nextest || is_conformance) {
        return None;
    }
    let passed = number_before(line, " passed")?;
    Some(Counts { passed, failed: number_before(line, " failed").unwrap_or(0) })
}

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    let (before, _) = line.split_once(word)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_all_runners_are_counted_and_nothing_else() {
        let cases = [
            ("test result: ok. 22 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s", Some((22, 1))),
            ("     Summary [   0.022s] 23 tests run: 22 passed (1 leaky), 1 failed, 0 skipped", Some((22, 1))),
            ("     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped", Some((0, 0))),
            ("41 passed, 0 failed", Some((41, 0))),
            ("        PASS [   0.004s] xtask counts::tests::3 passed", None),
            // nextest shows the output of a failed test, indented.
            ("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out", None),
            ("test passed_and_failed ... ok", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(passed, failed)| Counts { passed, failed });
            assert_eq!(in_line(line), expected, "{line}");
        }
    }
}
