//! What a statement says, before it is known whether that makes sense.

use super::problem::Place;

/// `editor(arguments) where condition`
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub editor: Call,
    pub condition: Option<Logic>,
}

/// A function with its arguments, and keys behind it: `Split(name, "/")[1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub name: String,
    pub place: Place,
    pub arguments: Vec<Argument>,
    /// Always empty for editors.
    pub keys: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// `name=` in front of it.
    pub name: Option<String>,
    pub place: Place,
    pub value: Expression,
}

/// What is true or false.
#[derive(Debug, Clone, PartialEq)]
pub enum Logic {
    /// At least two.
    Or(Vec<Logic>),
    /// At least two.
    And(Vec<Logic>),
    Not(Box<Logic>),
    Literal(bool),
    /// A converter that says it.
    Call(Call),
    Comparison {
        left: Expression,
        comparison: Comparison,
        right: Expression,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Expression {
    pub place: Place,
    pub node: Node,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// `SPAN_KIND_SERVER`, or the name of a function where one is wanted.
    Enum(String),
    List(Vec<Expression>),
    /// In the order of the text; of equal keys the last counts.
    Map(Vec<(String, Expression)>),
    Path(Path),
    Call(Call),
    /// The name of a converter as an argument.
    Function(String),
    Negated(Box<Expression>),
    /// Operators of one level, left to right. At least one in `rest`.
    Arithmetic {
        first: Box<Expression>,
        rest: Vec<(Operator, Expression)>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// `span.attributes["a"][0]`: what the names mean is for [`super::path`].
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// At least one.
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub name: String,
    pub place: Place,
    pub keys: Vec<Expression>,
}

impl Operator {
    /// `*` and `/` bind tighter.
    pub fn binds_tighter(self) -> bool {
        matches!(self, Self::Multiply | Self::Divide)
    }
}
