//! What both programs have in common: how they are called.

use std::collections::BTreeMap;

/// `--name value` pairs, by name.
pub fn options() -> BTreeMap<String, String> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let pair = |pair: &[String]| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone());
    given.chunks_exact(2).map(pair).collect()
}
