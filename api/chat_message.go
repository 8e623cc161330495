package api

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/prompt"
)

// chatMessage is one turn of a conversation. What stands beside role, content and audio is what clients send back of earlier
// answers.
type chatMessage struct {
	Role         string            `json:"role" schema:"required;enum=\"system\",\"developer\",\"user\",\"assistant\""`
	Content      content           `json:"content"`
	Name         string            `json:"name"`
	Audio        *chatMessageAudio `json:"audio"`
	Refusal      *string           `json:"refusal"`
	Annotations  jsontext.Value    `json:"annotations"`
	ToolCalls    jsontext.Value    `json:"tool_calls" schema:"enum=[]"`
	FunctionCall jsontext.Value    `json:"function_call" schema:"enum="`
}

// chatMessageAudio is the speech of an earlier answer. Its words count, not its sound.
type chatMessageAudio struct {
	ID         string  `json:"id"`
	Transcript string  `json:"transcript"`
	Data       string  `json:"data"`
	ExpiresAt  float64 `json:"expires_at"`
}

// content is a text or a list of parts.
type content struct {
	text  string
	parts []contentPart
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *content) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	switch decoder.PeekKind() {
	case '"', 'n':
		return json.UnmarshalDecode(decoder, &c.text)
	case '[':
		return json.UnmarshalDecode(decoder, &c.parts)
	default:
		return invalid("", "want a string or a list of parts")
	}
}

// schema implements describer.
func (content) schema(*schemas) object {
	part := object{
		"type": "object", "required": []string{"type", "text"}, "additionalProperties": false,
		"properties": object{"type": object{"type": "string", "enum": []any{"text"}}, "text": object{"type": "string"}},
	}
	return object{"oneOf": []object{{"type": "string"}, {"type": "array", "items": part}}}
}

// contentPart is one part of a content. The fields of the kinds that are not supported are listed so that the answer can say so.
type contentPart struct {
	Type       string         `json:"type"`
	Text       *string        `json:"text"`
	ImageURL   jsontext.Value `json:"image_url"`
	InputAudio jsontext.Value `json:"input_audio"`
	AudioURL   jsontext.Value `json:"audio_url"`
	VideoURL   jsontext.Value `json:"video_url"`
	Image      jsontext.Value `json:"image"`
	Audio      jsontext.Value `json:"audio"`
	Video      jsontext.Value `json:"video"`
	File       jsontext.Value `json:"file"`
}

// unsupportedParts are the kinds of parts that clients know and this server does not take yet.
var unsupportedParts = map[string]string{
	"image_url": "images", "image": "images", "input_image": "images",
	"input_audio": "audio", "audio_url": "audio", "audio": "audio",
	"video_url": "video", "video": "video",
	"file": "files",
}

// join returns the text of a content, whose parts are lines.
func (c content) join(param string) (string, error) {
	if c.parts == nil {
		return c.text, nil
	}
	var texts []string
	for i, part := range c.parts {
		place := fmt.Sprintf("%s[%d]", param, i)
		switch what := unsupportedParts[part.Type]; {
		case what != "":
			return "", invalid(place+".type", "%s parts are not supported: this server does not take %s in prompts yet, only text", part.Type, what)
		case part.Type != "text":
			return "", invalid(place+".type", "unknown type of part %q, want text", part.Type)
		case part.Text == nil:
			return "", invalid(place+".text", "a text part needs a text")
		}
		texts = append(texts, *part.Text)
	}
	return strings.Join(texts, "\n"), nil
}

// roles are the roles that a message may have, with what the model calls them.
var roles = map[string]string{"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

// converse puts a conversation into a request. One without a system message gets the one that the model speaks best with.
func converse(req *pipeline.Request, messages []chatMessage, limits Limits) error {
	if len(messages) == 0 {
		return invalid("messages", "messages is missing or empty, want at least one message")
	}
	total := 0
	for i, m := range messages {
		place := fmt.Sprintf("messages[%d]", i)
		role, ok := roles[m.Role]
		if !ok {
			return invalid(place+".role", "unknown role %q, want system, developer, user or assistant", m.Role)
		}
		if err := checkNeutral([]neutral{
			{place + ".tool_calls", m.ToolCalls, []string{"[]"}}, {place + ".function_call", m.FunctionCall, nil},
		}); err != nil {
			return err
		}
		text, err := m.Content.join(place + ".content")
		if err != nil {
			return err
		}
		if text == "" && role == "assistant" && m.Audio != nil {
			text = m.Audio.Transcript
		}
		if text == "" && role == "user" {
			return invalid(place+".content", "a user's message has no text")
		}
		if total += len(text); total > limits.PromptBytes {
			return invalid(place+".content", "the messages hold more than %d bytes of text, the server's limit", limits.PromptBytes)
		}
		req.Messages = append(req.Messages, prompt.Message{Role: role, Text: text})
	}
	req.UsualSystem = true
	return nil
}
