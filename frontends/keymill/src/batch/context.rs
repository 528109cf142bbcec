//! What `--context` asks for: pairs of literal text, the same for every cell, and pairs whose value is a column of the row.
//! Apart from the formats, which only find the columns' values.

use keymill_core::context::EncryptionContext;

use super::error::BatchError;

/// Marks literal text on the command line.
const LITERAL: &str = "literal:";

/// The encryption context of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContextPlan {
    literals: Vec<(String, String)>,
    /// Name in the context, and the column or field that gives the value.
    columns: Vec<(String, String)>,
}

impl ContextPlan {
    /// Reads `name=column` and `name=literal:text`.
    pub(super) fn parse(pairs: &[String]) -> Result<Self, BatchError> {
        let mut plan = Self::default();
        for pair in pairs {
            let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(BatchError::usage(format!(
                    "--context takes name=column or name=literal:text, not {pair}"
                )));
            };
            let of_a_name = |pairs: &[(String, String)]| pairs.iter().any(|(known, _)| known == name);
            if of_a_name(&plan.literals) || of_a_name(&plan.columns) {
                return Err(BatchError::usage(format!("--context gives {name} twice")));
            }
            match value.strip_prefix(LITERAL) {
                Some(text) => plan.literals.push((name.to_owned(), text.to_owned())),
                None if value.is_empty() => {
                    return Err(BatchError::usage(format!("--context names no column for {name}")));
                }
                None => plan.columns.push((name.to_owned(), value.to_owned())),
            }
        }
        // The limit on characters holds for literals alone, too; better told now than at the first row.
        plan.of_row(&vec![String::new(); plan.columns.len()]).map_err(BatchError::usage)?;
        Ok(plan)
    }

    /// Returns the columns or fields whose values a row's context needs, in the order that `of_row` takes them.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(_, column)| column.as_str())
    }

    /// Tells whether each row has a context of its own.
    pub(super) fn is_per_row(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Returns the context of every cell, where rows have none of their own and there is one.
    pub(super) fn common(&self) -> Option<EncryptionContext> {
        let context = (!self.is_per_row()).then(|| self.of_row(&[]).ok()).flatten()?;
        (!context.is_empty()).then_some(context)
    }

    /// Makes the context of a row from the values of its columns.
    pub(super) fn of_row(&self, values: &[String]) -> Result<EncryptionContext, String> {
        let literals = self.literals.iter().map(|(name, text)| (name.as_str(), text.as_str()));
        let columns =
            self.columns.iter().map(|(name, _)| name.as_str()).zip(values.iter().map(String::as_str));
        EncryptionContext::from_pairs(literals.chain(columns)).map_err(|error| error.message().to_owned())
    }

    /// Returns every pair as the command line gave it, for the fingerprint of the arguments.
    pub(super) fn spelled(&self) -> Vec<[&str; 3]> {
        let literals = self.literals.iter().map(|(name, text)| [name, LITERAL, text.as_str()]);
        let columns = self.columns.iter().map(|(name, column)| [name, "", column.as_str()]);
        let mut all: Vec<_> = literals.chain(columns).collect();
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[&str]) -> Result<ContextPlan, BatchError> {
        ContextPlan::parse(&pairs.iter().map(|pair| (*pair).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn columns_and_literals_make_the_context_of_a_row() {
        let plan = parse(&["row=id", "table=literal:customers=old"]).unwrap();
        assert!(plan.is_per_row() && plan.common().is_none());
        let context = plan.of_row(&["7".to_owned()]).unwrap();
        assert_eq!(context.pairs().collect::<Vec<_>>(), [("row", "7"), ("table", "customers=old")]);
    }

    #[test]
    fn literals_alone_are_common_to_all_cells() {
        let common = parse(&["table=literal:"]).unwrap().common().unwrap();
        assert_eq!(common.pairs().collect::<Vec<_>>(), [("table", "")]);
        assert_eq!(parse(&[]).unwrap().common(), None);
    }

    #[test]
    fn malformed_and_doubled_pairs_are_wrong_use() {
        for bad in [&["row"][..], &["=id"], &["row="], &["a=id", "a=literal:x"]] {
            assert_eq!(parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        assert!(
            parse(&[&format!("a=literal:{}", "x".repeat(9000))]).unwrap_err().to_string().contains("8192")
        );
    }

    #[test]
    fn the_order_of_pairs_does_not_change_their_spelling() {
        let (a, b) = (parse(&["a=x", "b=literal:y"]).unwrap(), parse(&["b=literal:y", "a=x"]).unwrap());
        assert_eq!(a.spelled(), b.spelled());
        assert_ne!(a.spelled(), parse(&["a=literal:x", "b=literal:y"]).unwrap().spelled());
    }
}
