//! SQL values as JSON and back, as the npm package has them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rivetkit::{BindParam, ColumnValue, QueryResult};
use serde_json::Value;

/// A parameter of a statement.
pub(crate) fn bind(value: &Value) -> Result<BindParam> {
    Ok(match value {
        Value::Null => BindParam::Null,
        Value::Number(number) => match number.as_i64() {
            Some(integer) => BindParam::Integer(integer),
            None => BindParam::Float(number.as_f64().context("a number that is none")?),
        },
        Value::String(text) => BindParam::Text(text.clone()),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => bail!("no SQL value: {value}"),
    })
}

/// Rows by the names of their columns.
pub(crate) fn objects(result: QueryResult) -> Result<Vec<BTreeMap<String, Value>>> {
    let object =
        |row: Vec<ColumnValue>| result.columns.iter().cloned().zip(row).map(|(name, value)| Ok((name, json(value)?))).collect();
    result.rows.into_iter().map(object).collect()
}

fn json(value: ColumnValue) -> Result<Value> {
    Ok(match value {
        ColumnValue::Null => Value::Null,
        ColumnValue::Integer(integer) => integer.into(),
        ColumnValue::Float(float) => float.into(),
        ColumnValue::Text(text) => text.into(),
        ColumnValue::Blob(_) => bail!("no case reads a blob here"),
    })
}
