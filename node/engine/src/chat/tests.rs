//! Templates as models bring them, and templates that misbehave.

use cocoon_protocol::job::Role;
use proptest::prelude::*;

use super::*;

fn turn(role: Role, content: &str) -> Turn {
    Turn { role, content: content.to_owned() }
}

fn dialogue() -> Vec<Turn> {
    vec![
        turn(Role::System, "Be brief."),
        turn(Role::User, "Hi \"there\" é"),
        turn(Role::Assistant, "Hello."),
        turn(Role::User, "Who?"),
    ]
}

fn render(source: &str) -> Result<String, ChatError> {
    ChatTemplate::new(Some(source), "<s>", "</s>")?
        .render(&dialogue(), Timestamp::from_unix_secs(1_795_315_199))
}

#[test]
fn without_a_template_chatml_is_used() {
    let text = ChatTemplate::new(None, "", "").unwrap().render(&dialogue(), Timestamp::EPOCH);
    assert_eq!(
        text.unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n\
         <|im_start|>user\nHi \"there\" é<|im_end|>\n\
         <|im_start|>assistant\nHello.<|im_end|>\n\
         <|im_start|>user\nWho?<|im_end|>\n\
         <|im_start|>assistant\n"
    );
}

/// As in Mistral-7B-Instruct-v0.2; expected text from the model's card.
#[test]
fn the_template_of_mistral() {
    let source = "{{ bos_token }}{% for message in messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
        {% endif %}{% if message['role'] == 'user' %}\
        {{ '[INST] ' + message['content'] + ' [/INST]' }}\
        {% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}\
        {% else %}{{ raise_exception('Only user and assistant roles are supported!') }}\
        {% endif %}{% endfor %}";
    let template = ChatTemplate::new(Some(source), "<s>", "</s>").unwrap();
    let user_first = &dialogue()[1..];
    assert_eq!(
        template.render(user_first, Timestamp::EPOCH).unwrap(),
        "<s>[INST] Hi \"there\" é [/INST]Hello.</s>[INST] Who? [/INST]"
    );
    let message = "Conversation roles must alternate user/assistant/user/assistant/...".to_owned();
    assert_eq!(template.render(&dialogue(), Timestamp::EPOCH), Err(ChatError::Refused { message }));
}

#[test]
fn blocks_are_trimmed_as_hugging_face_does() {
    assert_eq!(render("a\n  {% if true %}\nb\n  {% endif %}\nc\n").unwrap(), "a\nb\nc");
}

#[test]
fn generation_blocks_for_training_are_transparent() {
    let source =
        "{% for m in messages %}{%- generation -%} {{ m.role }} {%- endgeneration %}{% endfor %}";
    assert_eq!(render(source).unwrap(), "systemuserassistantuser");
}

#[test]
fn python_methods_work_on_strings_and_maps() {
    let source = "{{ messages[1].content.upper().split(' ')[0] }} \
        {{- messages[0].get('name', 'nobody') }}{{ 'x'.strip() if 'B' in messages[0].content }}";
    assert_eq!(render(source).unwrap(), "HInobodyx");
}

/// Expected texts from Python's `json.dumps` with the same arguments.
#[test]
fn tojson_writes_what_python_writes() {
    assert_eq!(
        render("{{ messages[1]|tojson }}").unwrap(),
        r#"{"role": "user", "content": "Hi \"there\" é"}"#
    );
    assert_eq!(
        render("{{ messages[1]|tojson(ensure_ascii=true, sort_keys=true) }}").unwrap(),
        r#"{"content": "Hi \"there\" \u00e9", "role": "user"}"#
    );
    assert_eq!(
        render("{{ {'a': [1, 2.5, none, true], 'b': {}}|tojson(indent=2) }}").unwrap(),
        "{\n  \"a\": [\n    1,\n    2.5,\n    null,\n    true\n  ],\n  \"b\": {}\n}"
    );
    assert_eq!(
        render("{{ {'a': [1, 2]}|tojson(separators=[',', ':']) }}").unwrap(),
        r#"{"a":[1,2]}"#
    );
}

#[test]
fn the_date_is_the_one_given() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}").unwrap(), "22 Nov 2026");
}

#[test]
fn templates_that_do_not_compile_are_refused_with_their_line() {
    assert_eq!(render("\n{% for %}"), Err(ChatError::BadTemplate { line: 2 }));
    assert_eq!(render("{{ include('x') }}"), Err(ChatError::Failed { line: 1 }));
    assert!(render("{% include 'other' %}").is_err());
}

#[test]
fn endless_and_multiplying_templates_end_in_an_error() {
    let endless =
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}";
    assert_eq!(render(endless), Err(ChatError::TooMuch));
    let multiplying = "{% for i in range(90000) %}{{ '0123456789'.replace('5', '0123456789') }}\
        {{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}";
    assert_eq!(render(multiplying), Err(ChatError::TooMuch));
    let recursive = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    assert!(render(recursive).is_err());
}

#[test]
fn no_error_quotes_the_dialogue() {
    let errors = [
        render("{{ raise_exception('saw ' + messages[0].content) }}"),
        render("{{ raise_exception(messages[0].content) }}"),
        render("{{ messages[0].content.nothing() }}"),
        render("{{ messages[0].content|int }}"),
    ];
    for error in errors {
        let error = error.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("brief"), "{error:?}");
    }
}

proptest! {
    #[test]
    fn a_hostile_template_never_panics(source in r"(\{%|%\}|\{\{|\}\}|[a-z ]{1,6}|-|generation|[|.()'\[\]]){0,20}") {
        if let Ok(template) = ChatTemplate::new(Some(&source), "", "") {
            let _ = template.render(&dialogue(), Timestamp::EPOCH);
        }
    }

    #[test]
    fn content_is_never_taken_for_template(content in ".{0,40}") {
        let turns = [turn(Role::User, &content)];
        let text = ChatTemplate::new(None, "", "").unwrap().render(&turns, Timestamp::EPOCH);
        prop_assert_eq!(
            text.unwrap(),
            format!("<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n")
        );
    }
}
