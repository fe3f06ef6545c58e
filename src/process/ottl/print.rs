//! Trees as text that parses back to the same tree.

use std::fmt::{self, Display, Formatter, Write};

use super::ast::{Argument, Call, Comparison, Expression, Logic, Node, Operator, Path, Statement};

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.editor)?;
        match &self.condition {
            Some(condition) => write!(f, " where {condition}"),
            None => Ok(()),
        }
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        list(f, &self.arguments)?;
        f.write_str(")")?;
        keys(f, &self.keys)
    }
}

impl Display for Argument {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        write!(f, "{}", self.value)
    }
}

impl Display for Logic {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Or(operands) => joined(f, operands, " or "),
            Self::And(operands) => joined(f, operands, " and "),
            Self::Not(operand) => match **operand {
                Self::Or(_) | Self::And(_) | Self::Not(_) => write!(f, "not ({operand})"),
                _ => write!(f, "not {operand}"),
            },
            Self::Literal(value) => write!(f, "{value}"),
            Self::Call(call) => write!(f, "{call}"),
            Self::Comparison { left, comparison, right } => write!(f, "{left} {comparison} {right}"),
        }
    }
}

/// Operands that are operations themselves stand in parentheses, whether they need them or not.
fn joined(f: &mut Formatter<'_>, operands: &[Logic], between: &str) -> fmt::Result {
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        match operand {
            Logic::Or(_) | Logic::And(_) => write!(f, "({operand})")?,
            _ => write!(f, "{operand}")?,
        }
    }
    Ok(())
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        })
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Nil => f.write_str("nil"),
            Node::Bool(value) => write!(f, "{value}"),
            Node::Int(value) => write!(f, "{value}"),
            // With a point always, and never with an exponent alone.
            Node::Double(value) => match value.fract() == 0.0 {
                true => write!(f, "{value:.1}"),
                false => write!(f, "{value}"),
            },
            Node::Text(text) => quoted(f, text),
            Node::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Node::Enum(name) | Node::Function(name) => f.write_str(name),
            Node::List(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Node::Map(entries) => {
                f.write_str("{")?;
                for (index, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    quoted(f, key)?;
                    write!(f, ": {value}")?;
                }
                f.write_str("}")
            }
            Node::Path(path) => write!(f, "{path}"),
            Node::Call(call) => write!(f, "{call}"),
            Node::Negated(operand) => write!(f, "-({operand})"),
            Node::Arithmetic { first, rest } => {
                operand(f, first)?;
                for (operator, right) in rest {
                    write!(f, " {operator} ")?;
                    operand(f, right)?;
                }
                Ok(())
            }
        }
    }
}

fn operand(f: &mut Formatter<'_>, operand: &Expression) -> fmt::Result {
    match operand.node {
        Node::Arithmetic { .. } => write!(f, "({operand})"),
        _ => write!(f, "{operand}"),
    }
}

impl Display for Operator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        })
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            f.write_str(if index > 0 { "." } else { "" })?;
            f.write_str(&segment.name)?;
            keys(f, &segment.keys)?;
        }
        Ok(())
    }
}

fn keys(f: &mut Formatter<'_>, keys: &[Expression]) -> fmt::Result {
    keys.iter().try_for_each(|key| write!(f, "[{key}]"))
}

fn list(f: &mut Formatter<'_>, items: &[impl Display]) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        f.write_str(if index > 0 { ", " } else { "" })?;
        write!(f, "{item}")?;
    }
    Ok(())
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            '\r' => f.write_str("\\r")?,
            other if other.is_control() => write!(f, "\\u{:04x}", u32::from(other))?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}
