//! Names that are not among those that there are, and which of these was meant.

/// So much alike is a name with a letter too many or too few, or a word of it left out.
const ALIKE: f64 = 0.75;

/// What is to be said of those wanted that are not known; None where all are.
pub fn unknown(wanted: &[String], known: &[&str]) -> Option<String> {
    let one = |name: &String| match likeliest(name, known) {
        Some(meant) => format!("{name} (did you mean '{meant}'?)"),
        None => name.clone(),
    };
    let unknown: Vec<String> =
        wanted.iter().filter(|name| !known.contains(&name.as_str())).map(one).collect();
    (!unknown.is_empty()).then(|| format!("there is no configuration {}", unknown.join(", nor ")))
}

fn likeliest<'a>(wanted: &str, known: &[&'a str]) -> Option<&'a str> {
    let alike = |name: &str| strsim::jaro_winkler(name, wanted);
    let best = known.iter().copied().max_by(|one, two| alike(one).total_cmp(&alike(two)))?;
    (alike(best) > ALIKE).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_told_with_the_one_that_was_meant() {
        let told = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            unknown(&wanted, &["cleanup.policy", "retention.bytes", "retention.ms"])
        };
        assert_eq!(told(&["retention.ms", "cleanup.policy"]), None);
        let expected = "there is no configuration retention.mss (did you mean 'retention.ms'?), nor xyz";
        assert_eq!(told(&["retention.mss", "retention.ms", "xyz"]).as_deref(), Some(expected));
        assert_eq!(unknown(&["a".into()], &[]).as_deref(), Some("there is no configuration a"));
    }
}
