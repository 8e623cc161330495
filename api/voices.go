package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/omni-run/omni/pipeline"
)

// voiceList is the answer of /v1/audio/voices.
type voiceList struct {
	Voices  []string `json:"voices"`
	Default string   `json:"default"`
}

// voices lists the voices of the checkpoint: those that every stage that has voices knows.
func (s *Server) voices(c echo.Context) error {
	return c.JSON(http.StatusOK, listVoices(s.cfg.Engine.Stages()))
}

func listVoices(stages []pipeline.StageStatus) voiceList {
	list := voiceList{Voices: []string{}}
	first := true
	for _, stage := range stages {
		switch names := stage.Info.Speakers; {
		case len(names) == 0:
		case first:
			list.Voices, list.Default, first = slices.Clone(names), stage.Info.DefaultSpeaker, false
		default:
			list.Voices = slices.DeleteFunc(list.Voices, func(name string) bool { return !slices.Contains(names, name) })
		}
	}
	return list
}

// voice is a voice's name, or an object that holds it.
type voice string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *voice) UnmarshalJSONFrom(decoder *jsontext.Decoder) error {
	switch decoder.PeekKind() {
	case '"', 'n':
		return json.UnmarshalDecode(decoder, (*string)(v))
	case '{':
		var object struct {
			ID *string `json:"id"`
		}
		if err := json.UnmarshalDecode(decoder, &object); err != nil {
			return err
		}
		if object.ID == nil {
			return invalid("id", "want a voice's name")
		}
		*v = voice(*object.ID)
		return nil
	default:
		return invalid("", "want a voice's name")
	}
}

// schema implements describer.
func (voice) schema(*schemas) object {
	id := object{"type": "object", "properties": object{"id": object{"type": "string"}}, "required": []string{"id"}, "additionalProperties": false}
	return object{"oneOf": []object{{"type": "string"}, id}}
}

// pick returns the checkpoint's spelling of the voice; empty stays empty, which is the model's own.
func (v voice) pick(param string, stages []pipeline.StageStatus) (string, error) {
	if v == "" {
		return "", nil
	}
	known := listVoices(stages).Voices
	if slices.Contains(known, string(v)) {
		return string(v), nil
	}
	for _, name := range known {
		if strings.EqualFold(name, string(v)) {
			return name, nil
		}
	}
	return "", invalid(param, "unknown voice %q, this checkpoint has %q", string(v), known)
}
