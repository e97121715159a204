//! The dotted paths of a broker's configuration, from tables in tables.

/// Nested tables as the dotted paths that the broker's configuration knows.
pub fn broker_settings(table: &toml::Table) -> impl Iterator<Item = (String, String)> + use<> {
    let mut settings = Vec::new();
    flatten("", table, &mut settings);
    settings.into_iter()
}

fn flatten(prefix: &str, table: &toml::Table, settings: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, settings),
            toml::Value::String(text) => settings.push((path, text.clone())),
            other => settings.push((path, other.to_string())),
        }
    }
}
