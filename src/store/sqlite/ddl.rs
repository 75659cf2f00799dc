//! What only the text of a CREATE statement tells: which columns a CHECK names, and when a trigger fires.

use super::lex::Token;

/// The insides of CHECK (…) in a CREATE TABLE.
pub(super) fn checks(sql: &[Token]) -> impl Iterator<Item = &[Token]> {
    sql.iter()
        .enumerate()
        .filter(|(at, token)| token.is("check") && sql.get(at + 1) == Some(&Token::Open))
        .map(|(at, _)| {
            let inside = &sql[at + 2..];
            let mut depth = 1_usize;
            let end = inside.iter().position(|token| {
                match token {
                    Token::Open => depth += 1,
                    Token::Close => depth -= 1,
                    _ => {}
                }
                depth == 0
            });
            &inside[..end.unwrap_or(inside.len())]
        })
}

/// Whether `CREATE TRIGGER name … {DELETE | INSERT | UPDATE [OF columns]} ON …` fires when one of the columns is assigned.
pub(super) fn fires_on_update(trigger: &[Token], columns: &[&str]) -> bool {
    let body: Vec<&Token> = trigger.iter().filter(|token| **token != Token::Comment).collect();
    // The name may be any word; the event is the last of these before the first ON that follows it, and ON is no bare name.
    let Some(on) = body.iter().position(|token| token.is("on")) else {
        return true;
    };
    let head = &body[..on];
    let Some(event) = head
        .iter()
        .rposition(|token| token.is("update") || token.is("insert") || token.is("delete"))
    else {
        return true;
    };
    if let Some(of) = head.iter().rposition(|token| token.is("of"))
        && of > 0
        && head[of - 1].is("update")
    {
        return head[of..]
            .iter()
            .any(|token| columns.iter().any(|column| token.names(column)));
    }
    head[event].is("update")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::lex::tokens;
    use super::*;

    #[test]
    fn triggers_are_told_apart_by_event_and_columns() {
        let fires = |sql: &str| fires_on_update(&tokens(sql).unwrap(), &["note"]);
        assert!(fires("CREATE TRIGGER a AFTER UPDATE ON t BEGIN SELECT 1; END"));
        assert!(fires("CREATE TRIGGER \"insert\" UPDATE ON t BEGIN SELECT 1; END"));
        assert!(fires(
            "CREATE TRIGGER a BEFORE UPDATE OF x, \"Note\" ON t BEGIN SELECT 1; END"
        ));
        assert!(fires(
            "CREATE TRIGGER IF NOT EXISTS main.delete_log /* on */ AFTER UPDATE ON t BEGIN SELECT 1; END"
        ));
        assert!(!fires(
            "CREATE TRIGGER a AFTER UPDATE OF other ON t BEGIN UPDATE t SET note = 1; END"
        ));
        assert!(!fires(
            "CREATE TRIGGER \"update\" AFTER INSERT ON t BEGIN UPDATE t SET note = 1; END"
        ));
        assert!(!fires("CREATE TRIGGER a DELETE ON t BEGIN SELECT 1; END"));
    }

    #[test]
    fn check_constraints_are_found_by_column() {
        let sql = tokens("CREATE TABLE t(a CHECK (length(a) < 9), note TEXT, CHECK ((a) > 'note'))").unwrap();
        let naming = |column: &str| {
            checks(&sql)
                .filter(|check| check.iter().any(|token| token.names(column)))
                .count()
        };
        assert_eq!(naming("a"), 2);
        assert_eq!(naming("note"), 0);
    }
}
