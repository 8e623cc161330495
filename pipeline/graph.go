package pipeline

import (
	"fmt"
	"os"

	"github.com/omni-run/omni/pipeline/checkpoint"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/family"
)

// Graph is what a pipeline runs: [Open] makes one of a checkpoint, [OpenGraph] takes one that the caller made.
type Graph struct {
	// Checkpoint is the folder that the engines load.
	Checkpoint string
	// Stages are all stages of the model, by ascending ID; each comes after its inputs.
	Stages []family.Stage
	// Edges say what the stages hand on.
	Edges []family.Edge
	// Config deploys the stages to run.
	Config *config.Config
	// Model prepares requests.
	Model Model
}

// Model turns requests into the parameters of stages. It must be safe for concurrent use.
type Model interface {
	Prepare(req family.Request, infos map[int]family.StageInfo) (*family.Prepared, error)
	NewTextDecoder() TextDecoder
}

// TextDecoder makes text of the token ids of one request.
type TextDecoder interface {
	// Push returns the text that ids complete.
	Push(ids ...int64) string
	// Flush returns what is left at the end.
	Flush() string
}

// familyModel is a family.Model as a Model.
type familyModel struct{ family.Model }

// NewTextDecoder implements Model.
func (m familyModel) NewTextDecoder() TextDecoder { return m.Model.NewTextDecoder() }

// resolve finds the checkpoint, its family and the deployment.
func resolve(cfg *Config) (*Graph, error) {
	folder, err := checkpoint.Open(cfg.Model, os.Getenv)
	if err != nil {
		return nil, err
	}
	f, err := family.Lookup(folder)
	if err != nil {
		return nil, err
	}
	deployment := f.DefaultConfig()
	if cfg.StageConfigsPath != "" {
		if deployment, err = config.Load(cfg.StageConfigsPath, deployment); err != nil {
			return nil, err
		}
	}
	if cfg.Device != "" {
		deployment = deployment.WithDevice(cfg.Device)
	}
	if cfg.DType != "" {
		deployment = deployment.WithDType(cfg.DType)
	}
	for _, mode := range []string{cfg.SpeechMode, cfg.DefaultSpeechMode} {
		if mode == "" {
			continue
		}
		if err := config.CheckMode(mode); err != nil {
			return nil, fmt.Errorf("speech mode: %w", err)
		}
	}
	if cfg.DefaultSpeechMode != "" {
		deployment = deployment.WithDefaultMode(cfg.DefaultSpeechMode)
	}
	if cfg.SpeechMode != "" {
		deployment = deployment.WithMode(cfg.SpeechMode)
	}
	if err := deployment.Validate(); err != nil {
		return nil, fmt.Errorf("stage configuration %s: %w", deployment.Source, err)
	}
	model, err := f.Open(folder, deployment)
	if err != nil {
		return nil, err
	}
	return &Graph{
		Checkpoint: folder.Path, Stages: f.Stages, Edges: f.Edges, Config: deployment, Model: familyModel{model},
	}, nil
}
