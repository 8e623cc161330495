package message

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// envelope is the header of a message as it travels.
type envelope struct {
	Type    Kind            `json:"type"`
	Tensors []Tensor        `json:"tensors,omitempty"`
	Payload json.RawMessage `json:"payload"`
}

// blank returns an empty message of a kind, nil if the kind is unknown.
func blank(kind Kind) Message {
	switch kind {
	case KindHello:
		return &Hello{}
	case KindOpen:
		return &Open{}
	case KindProgress:
		return &Progress{}
	case KindReady:
		return &Ready{}
	case KindFault:
		return &Fault{}
	case KindAdmit:
		return &Admit{}
	case KindFeed:
		return &Feed{}
	case KindCancel:
		return &Cancel{}
	case KindCredit:
		return &Credit{}
	case KindOutput:
		return &Output{}
	case KindPing:
		return &Ping{}
	case KindPong:
		return &Pong{}
	case KindProfileStart:
		return &ProfileStart{}
	case KindProfileStop:
		return &ProfileStop{}
	case KindProfileWait:
		return &ProfileWait{}
	case KindProfileDump:
		return &ProfileDump{}
	case KindProfileStatus:
		return &ProfileStatus{}
	case KindProfileReply:
		return &ProfileReply{}
	case KindDrain:
		return &Drain{}
	case KindBye:
		return &Bye{}
	}
	return nil
}

// Encode returns the header and the pieces of the body, which alias the tensors' data. What Encode accepts, Decode does.
func Encode(m Message) (header []byte, body [][]byte, err error) {
	if err := m.check(); err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", m.Kind(), err)
	}
	e := envelope{Type: m.Kind()}
	if c, ok := m.(Carrier); ok {
		e.Tensors = *c.carried()
		if len(e.Tensors) > MaxTensors {
			return nil, nil, fmt.Errorf("encode %s: %d tensors, at most %d are possible", e.Type, len(e.Tensors), MaxTensors)
		}
		for i := range e.Tensors {
			if err := e.Tensors[i].check(); err != nil {
				return nil, nil, fmt.Errorf("encode %s: %w", e.Type, err)
			}
			if len(e.Tensors[i].Data) > 0 {
				body = append(body, e.Tensors[i].Data)
			}
		}
	}
	if e.Payload, err = json.Marshal(m); err == nil {
		header, err = json.Marshal(&e)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("encode %s: %w", e.Type, err)
	}
	return header, body, nil
}

// Decode is the inverse of Encode. The tensors of the message alias body.
func Decode(header, body []byte) (Message, error) {
	var e envelope
	if err := strict(header, &e); err != nil {
		return nil, fmt.Errorf("decode header: %w", err)
	}
	m := blank(e.Type)
	if m == nil {
		return nil, fmt.Errorf("decode header: unknown message type %.40q", e.Type)
	}
	if err := strict(e.Payload, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.Type, err)
	}
	rest, err := cut(e.Tensors, body)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.Type, err)
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("decode %s: body of %d bytes has %d more than its tensors", e.Type, len(body), len(rest))
	}
	if c, ok := m.(Carrier); ok {
		*c.carried() = e.Tensors
	} else if len(e.Tensors) > 0 {
		return nil, fmt.Errorf("decode %s: it cannot carry tensors, found %d", e.Type, len(e.Tensors))
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.Type, err)
	}
	return m, nil
}

// cut gives each tensor its part of body and returns what is left.
func cut(tensors []Tensor, body []byte) ([]byte, error) {
	if len(tensors) > MaxTensors {
		return nil, fmt.Errorf("%d tensors, at most %d are possible", len(tensors), MaxTensors)
	}
	for i := range tensors {
		size, err := tensors[i].Size()
		if err != nil {
			return nil, err
		}
		if size > int64(len(body)) {
			return nil, fmt.Errorf("tensor %q of %s%v needs %d bytes, the body has %d left",
				tensors[i].Name, tensors[i].DType, tensors[i].Shape, size, len(body))
		}
		tensors[i].Data, body = body[:size:size], body[size:]
	}
	return body, nil
}

// strict decodes exactly one JSON value without unknown fields.
func strict(data []byte, into any) error {
	if len(data) == 0 {
		return errors.New("nothing to decode")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}
