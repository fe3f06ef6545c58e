//! The functions there are: names, parameters, what they give. One table; checks, error hints and documentation read it.

use std::borrow::Cow;

use regex::Regex;

use super::ast::{self, Expression, Node};
use super::compile::{Compiler, Expr, Literal};
use super::evaluate;
use super::failure::Failure;
use super::frame::{Frame, View};
use super::path::FieldPath;
use super::problem::Problem;
use super::value::{Types, Value};
use super::{converters, editors, pattern};
use crate::config::diagnostic::suggestion;

pub struct Function {
    pub name: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// Of an editor: nothing.
    pub(super) gives: Types,
    /// Asks something of the span itself.
    pub(super) only_spans: bool,
    pub(super) run: Run,
    /// What arguments must be to one another.
    pub(super) check: Option<Check>,
}

#[derive(Clone, Copy)]
pub(super) enum Run {
    Edit(Edit),
    Convert(Convert),
}

/// Constants are borrowed from the arguments, which live as long as the request.
pub(super) type Edit = for<'a> fn(&'a Arguments, &mut Frame<'_, 'a>) -> Result<(), Failure>;
pub(super) type Check = fn(&Arguments) -> Result<(), String>;
pub(super) type Convert = for<'v, 'a> fn(&'v Arguments, View<'v, 'a>) -> Result<Value<'v, 'a>, Failure>;

pub(super) struct Parameter {
    name: &'static str,
    wants: Wants,
    required: bool,
}

/// What stands for a parameter. Constants must be written in the statement itself, as in a Collector.
#[derive(Clone, Copy)]
pub(super) enum Wants {
    /// A path that something can be put into.
    Target,
    /// A path to a map.
    MapTarget,
    /// A value of one of these types.
    Value(Types),
    /// A list of values, each of one of these types, written in the statement.
    Values(Types),
    /// The same, or one value that is a list.
    ValuesOrList(Types),
    /// A regular expression in Go's syntax, a constant: it is compiled once.
    Pattern,
    /// A glob, a constant.
    Glob,
    /// One of these words, a constant; with none listed, any text.
    Word(&'static [&'static str]),
    /// A list of constant texts.
    Words,
    /// A constant, not below this.
    Number(i64),
    Flag,
    /// A text with one `%s`, a constant.
    Format,
    /// The name of a converter that takes one text.
    Function,
}

/// What was given for the parameters, in their order.
#[derive(Debug)]
pub struct Arguments(Vec<Argument>);

#[derive(Debug)]
pub(super) enum Argument {
    Absent,
    Target(FieldPath),
    Value(Expr),
    Values(Vec<Expr>),
    Pattern(Regex),
    Word(String),
    Words(Vec<String>),
    Number(i64),
    Flag(bool),
    Function(&'static Function),
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

pub(super) const fn required(name: &'static str, wants: Wants) -> Parameter {
    Parameter { name, wants, required: true }
}

pub(super) const fn optional(name: &'static str, wants: Wants) -> Parameter {
    Parameter { name, wants, required: false }
}

pub(super) const fn editor(name: &'static str, parameters: &'static [Parameter], edit: Edit) -> Function {
    Function { name, parameters, gives: Types::NONE, only_spans: false, run: Run::Edit(edit), check: None }
}

pub(super) const fn converter(
    name: &'static str,
    parameters: &'static [Parameter],
    gives: Types,
    convert: Convert,
) -> Function {
    Function { name, parameters, gives, only_spans: false, run: Run::Convert(convert), check: None }
}

impl Function {
    pub(super) const fn with_check(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    pub(super) const fn of_spans(mut self) -> Self {
        self.only_spans = true;
        self
    }
}

fn all() -> impl Iterator<Item = &'static Function> {
    editors::FUNCTIONS.iter().chain(converters::all())
}

pub fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
}

/// Editors, then converters.
pub fn names() -> Vec<&'static str> {
    all().map(|function| function.name).collect()
}

/// What the Collector has and is not here, so that "not supported" differs from a slip.
pub(super) const COLLECTORS: [&str; 40] = [
    "stringify_all",
    "set_semconv_span_name",
    "CommunityID",
    "ConvertAttributesToElementsXML",
    "ConvertTextToElementsXML",
    "Decode",
    "ExtractGrokPatterns",
    "Format",
    "FormatTime",
    "GetXML",
    "HasAttrKeyOnDatapoint",
    "HasAttrOnDatapoint",
    "InsertXML",
    "IsInCIDR",
    "IsValidLuhn",
    "Log",
    "MD5",
    "Murmur3Hash",
    "Murmur3Hash128",
    "ParseCSV",
    "ParseKeyValue",
    "ParseSeverity",
    "ParseSimplifiedXML",
    "ParseXML",
    "ProfileID",
    "RemoveXML",
    "SliceToMap",
    "Sort",
    "Time",
    "ToCamelCase",
    "ToKeyValueString",
    "ToSnakeCase",
    "TruncateTime",
    "URL",
    "UUID",
    "UUIDv7",
    "UserAgent",
    "XXH128",
    "XXH3",
    "Filter",
];

impl Compiler<'_> {
    /// Reads what was written for the parameters.
    pub(super) fn arguments(&mut self, function: &'static Function, call: &ast::Call) -> Result<Arguments, Problem> {
        let parameters = function.parameters;
        let mut arguments: Vec<Argument> = parameters.iter().map(|_| Argument::Absent).collect();
        let mut named_before = false;
        for (index, argument) in call.arguments.iter().enumerate() {
            let at = match &argument.name {
                None if named_before => {
                    let reason = "an argument without a name stands behind one with a name";
                    return Err(self.problem(argument.place, reason, "name it, or put it in front"));
                }
                None => index,
                Some(name) => {
                    named_before = true;
                    parameters.iter().position(|parameter| parameter.name == name).ok_or_else(|| {
                        let known = parameters.iter().map(|parameter| parameter.name);
                        let reason = format!("{} has no parameter {name}", function.name);
                        self.problem(argument.place, reason, suggestion(name, "it has", known))
                    })?
                }
            };
            let (Some(parameter), Some(slot)) = (parameters.get(at), arguments.get_mut(at)) else {
                let reason = format!("{} takes no more than {} arguments", function.name, parameters.len());
                return Err(self.problem(argument.place, reason, signature(function)));
            };
            if !matches!(slot, Argument::Absent) {
                let reason = format!("{} is given twice", parameter.name);
                return Err(self.problem(argument.place, reason, ""));
            }
            *slot = self.argument(parameter, &argument.value)?;
        }
        let missing = parameters
            .iter()
            .zip(&arguments)
            .find(|(parameter, argument)| parameter.required && matches!(argument, Argument::Absent));
        if let Some((parameter, _)) = missing {
            let reason = format!("{} lacks its argument {}", function.name, parameter.name);
            return Err(self.problem(call.place, reason, signature(function)));
        }
        let arguments = Arguments(arguments);
        match function.check.map_or(Ok(()), |check| check(&arguments)) {
            Ok(()) => Ok(arguments),
            Err(reason) => Err(self.problem(call.place, format!("{}: {reason}", function.name), "")),
        }
    }

    fn argument(&mut self, parameter: &Parameter, given: &Expression) -> Result<Argument, Problem> {
        let name = parameter.name;
        let place = given.place;
        let constant = |compiler: &Self, what: &str| {
            Err(compiler.problem(place, format!("{name} must be {what}, written in the statement itself"), ""))
        };
        match (parameter.wants, &given.node) {
            (Wants::Target | Wants::MapTarget, Node::Path(path)) => {
                let (path, gives) = self.path(path)?;
                if matches!(parameter.wants, Wants::MapTarget) && gives.and(Types::MAP).is_empty() {
                    let reason = format!("{name} must be a map like attributes, and this is {}", gives.words());
                    return Err(self.problem(place, reason, ""));
                }
                Ok(Argument::Target(path))
            }
            (Wants::Target | Wants::MapTarget, _) => {
                Err(self.problem(place, format!("{name} must be a path"), "e.g. span.attributes[\"key\"]"))
            }
            (Wants::Value(wanted), _) => Ok(Argument::Value(self.value(name, wanted, given)?)),
            (Wants::Values(wanted) | Wants::ValuesOrList(wanted), Node::List(items)) => {
                let items = items.iter().map(|item| self.value(name, wanted, item)).collect::<Result<_, _>>()?;
                Ok(Argument::Values(items))
            }
            (Wants::ValuesOrList(_), _) => Ok(Argument::Value(self.value(name, Types::LIST, given)?)),
            (Wants::Values(_), _) => Err(self.problem(place, format!("{name} must be a list like [\"a\", \"b\"]"), "")),
            (Wants::Pattern, Node::Text(text)) => match pattern::compile(text) {
                Ok(pattern) => Ok(Argument::Pattern(pattern)),
                Err(error) => Err(self.problem(place, format!("{name} is no regular expression: {error}"), "")),
            },
            (Wants::Glob, Node::Text(text)) => match pattern::glob(text) {
                Ok(pattern) => Ok(Argument::Pattern(pattern)),
                Err(error) => Err(self.problem(place, format!("{name} is no glob: {error}"), "")),
            },
            (Wants::Pattern | Wants::Glob, _) => constant(self, "a text: patterns are compiled once"),
            (Wants::Word(words), Node::Text(text)) => {
                if !words.is_empty() && !words.contains(&text.as_str()) {
                    let remedy = suggestion(text, "one of", words.iter().copied());
                    return Err(self.problem(place, format!("{name} cannot be {text:?}"), remedy));
                }
                Ok(Argument::Word(text.clone()))
            }
            (Wants::Word(_), _) => constant(self, "a text"),
            (Wants::Words, Node::List(items)) => {
                let mut words = Vec::with_capacity(items.len());
                for item in items {
                    match &item.node {
                        Node::Text(text) => words.push(text.clone()),
                        _ => return constant(self, "a list of texts"),
                    }
                }
                Ok(Argument::Words(words))
            }
            (Wants::Words, _) => constant(self, "a list of texts"),
            (Wants::Number(min), Node::Int(value)) if *value >= min => Ok(Argument::Number(*value)),
            (Wants::Number(min), Node::Int(value)) => {
                Err(self.problem(place, format!("{name} must not be below {min}, is {value}"), ""))
            }
            (Wants::Number(_), _) => constant(self, "a whole number"),
            (Wants::Flag, Node::Bool(value)) => Ok(Argument::Flag(*value)),
            (Wants::Flag, _) => constant(self, "true or false"),
            (Wants::Format, Node::Text(text)) => {
                let others = text.matches('%').count() - text.matches("%s").count();
                if text.matches("%s").count() != 1 || others > 0 {
                    return Err(self.problem(place, format!("{name} must have %s once and no other %"), ""));
                }
                Ok(Argument::Word(text.clone()))
            }
            (Wants::Format, _) => constant(self, "a text"),
            (Wants::Function, Node::Function(function) | Node::Enum(function)) => {
                let found = self.find(function, place)?;
                match (found.run, found.parameters) {
                    (Run::Convert(_), [Parameter { wants: Wants::Value(takes), .. }])
                        if !takes.and(Types::TEXT).is_empty() =>
                    {
                        Ok(Argument::Function(found))
                    }
                    _ => Err(self.problem(place, format!("{function} does not take one text"), "")),
                }
            }
            (Wants::Function, _) => {
                Err(self.problem(place, format!("{name} must be the name of a converter"), "e.g. SHA256"))
            }
        }
    }

    fn value(&mut self, name: &str, wanted: Types, given: &Expression) -> Result<Expr, Problem> {
        let (expr, types) = self.expr(given)?;
        if types.and(wanted).is_empty() {
            let reason = format!("{name} must be {}, and this is {}", wanted.words(), types.words());
            let is_constant = matches!(expr, Expr::Literal(_) | Expr::List(_) | Expr::Map(_));
            if is_constant {
                return Err(self.problem(given.place, reason, ""));
            }
            // A Collector loads it, and fails at every span.
            self.warn(given.place, format!("this can never work: {reason}"), "");
        }
        Ok(expr)
    }

    /// Warns about values that a path never takes.
    pub(super) fn check_set(&mut self, call: &ast::Call) {
        let [target, value] = call.arguments.as_slice() else { return };
        let Node::Path(path) = &target.value.node else { return };
        let warned = self.warnings.len();
        let (Ok((path, _)), Ok((_, types))) = (self.path(path), self.expr(&value.value)) else { return };
        self.warnings.truncate(warned);
        let takes = path.field.takes(!path.keys.is_empty());
        if takes.and(types).is_empty() {
            let (takes, given) = (takes.words(), types.words());
            let reason = format!("this can never work: {} takes {takes}, and not {given}", target.value);
            self.warn(target.place, reason, "");
        }
    }
}

/// `Substring(target, start, length, [utf8_safe])`
fn signature(function: &Function) -> String {
    let parameters = function.parameters.iter().map(|parameter| match parameter.required {
        true => parameter.name.to_owned(),
        false => format!("[{}]", parameter.name),
    });
    format!("it is {}({})", function.name, parameters.collect::<Vec<_>>().join(", "))
}

/// The readers of arguments. That each is of the kind the table says was made sure when the statement was loaded.
impl Arguments {
    /// One text alone, for a converter that is called by another function.
    pub(super) fn of_text(text: String) -> Self {
        Self(vec![Argument::Value(Expr::Literal(Literal::Text(text)))])
    }

    fn get(&self, index: usize) -> &Argument {
        self.0.get(index).unwrap_or(&Argument::Absent)
    }

    pub(super) fn is_given(&self, index: usize) -> bool {
        !matches!(self.get(index), Argument::Absent)
    }

    pub(super) fn expr(&self, index: usize) -> Result<&Expr, Failure> {
        match self.get(index) {
            Argument::Value(expr) => Ok(expr),
            _ => Err(MISSING),
        }
    }

    pub(super) fn value<'v, 'a>(&'v self, index: usize, view: View<'v, 'a>) -> Result<Value<'v, 'a>, Failure> {
        evaluate::value(self.expr(index)?, view)
    }

    /// The value that is written in the statement itself, if one is.
    pub(super) fn constant(&self, index: usize) -> Option<Value<'_, '_>> {
        match self.get(index) {
            Argument::Value(Expr::Literal(literal)) => Some(evaluate::constant(literal)),
            _ => None,
        }
    }

    /// A text and nothing that could be made one.
    pub(super) fn text<'v>(&'v self, index: usize, view: View<'v, '_>) -> Result<Cow<'v, str>, Failure> {
        evaluate::text(self.expr(index)?, view)
    }

    pub(super) fn int(&self, index: usize, view: View<'_, '_>) -> Result<i64, Failure> {
        match self.value(index, view)? {
            Value::Int(value) => Ok(value),
            other => Err(Failure::of_type(Types::INT, &other)),
        }
    }

    pub(super) fn target(&self, index: usize) -> Result<&FieldPath, Failure> {
        match self.get(index) {
            Argument::Target(path) => Ok(path),
            _ => Err(MISSING),
        }
    }

    pub(super) fn pattern(&self, index: usize) -> Result<&Regex, Failure> {
        match self.get(index) {
            Argument::Pattern(pattern) => Ok(pattern),
            _ => Err(MISSING),
        }
    }

    pub(super) fn word(&self, index: usize) -> Option<&str> {
        match self.get(index) {
            Argument::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(super) fn words(&self, index: usize) -> &[String] {
        match self.get(index) {
            Argument::Words(words) => words,
            _ => &[],
        }
    }

    pub(super) fn number(&self, index: usize) -> Option<i64> {
        match self.get(index) {
            Argument::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn flag(&self, index: usize) -> Option<bool> {
        match self.get(index) {
            Argument::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The items of a list that was written as one.
    pub(super) fn values(&self, index: usize) -> Option<&[Expr]> {
        match self.get(index) {
            Argument::Values(values) => Some(values),
            _ => None,
        }
    }

    pub(super) fn function(&self, index: usize) -> Option<Convert> {
        match self.get(index) {
            Argument::Function(Function { run: Run::Convert(convert), .. }) => Some(*convert),
            _ => None,
        }
    }
}

const MISSING: Failure = Failure::because("an argument is missing");
