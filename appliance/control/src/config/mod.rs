//! The configuration file: raw YAML, then a validated [`Config`], by consuming the raw form.
