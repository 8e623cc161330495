package prompt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// Message is one turn of a conversation. Its content is Text, or Parts when that is not nil.
type Message struct {
	Role  string
	Text  string
	Parts []Part
}

// Part is one piece of a message's content: {"type":"text","text":...}, {"type":"image",...} and so on. Templates
// look at whatever keys they know.
type Part map[string]any

// UnmarshalJSON accepts {"role","content"} with content a string or a list of parts.
func (m *Message) UnmarshalJSON(data []byte) error {
	raw := struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	}{}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&raw); err != nil {
		return fmt.Errorf("message: %w", err)
	}
	if raw.Role == "" {
		return errors.New("message: role is missing")
	}
	*m = Message{Role: raw.Role}
	switch {
	case len(raw.Content) > 0 && raw.Content[0] == '"':
		return json.Unmarshal(raw.Content, &m.Text)
	case len(raw.Content) > 0 && raw.Content[0] == '[':
		m.Parts = []Part{}
		if err := json.Unmarshal(raw.Content, &m.Parts); err != nil {
			return fmt.Errorf("message of role %q: content: %w", raw.Role, err)
		}
		return nil
	}
	return fmt.Errorf("message of role %q: content must be a string or a list of parts", raw.Role)
}

// MarshalJSON writes the form that UnmarshalJSON reads.
func (m Message) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"role": m.Role, "content": m.content()})
}

func (m Message) content() any {
	if m.Parts != nil {
		return m.Parts
	}
	return m.Text
}
