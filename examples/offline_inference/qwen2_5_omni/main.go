// Command qwen2_5_omni runs Qwen2.5-Omni on prompts and writes the text and the speech of each to files. Its flags are those of
// vLLM-Omni's example for that model, with dashes or underscores:
//
//	go run ./examples/offline_inference/qwen2_5_omni --query-type text --output-dir out
//	go run ./examples/offline_inference/qwen2_5_omni --model ./checkpoint --txt-prompts prompts.txt --profile-dir ./profiles
//
// It is package pipeline in use; for everyday work omni-run has more.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/config"
	"github.com/omni-run/omni/pipeline/media"
	"github.com/omni-run/omni/profiler"
)

// question is what is asked without --txt-prompts.
const question = "Explain the system architecture for a scalable audio generation pipeline. Answer in 15 words."

// settings are the flags.
type settings struct {
	model, query, prompts, output, modalities, stageConfigs, profileDir, profileStages string
	count, maxTokens                                                                   int
	seed                                                                               int64
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := readSettings(os.Args[1:])
	if err == nil {
		err = run(ctx, s)
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "qwen2_5_omni:", err)
		os.Exit(1)
	}
}

// readSettings reads the flags; an underscore in a flag's name is a dash.
func readSettings(args []string) (*settings, error) {
	for i, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		if strings.HasPrefix(name, "--") {
			args[i] = strings.ReplaceAll(name, "_", "-")
			if found {
				args[i] += "=" + value
			}
		}
	}
	s := &settings{}
	flags := flag.NewFlagSet("qwen2_5_omni", flag.ContinueOnError)
	flags.StringVar(&s.model, "model", "Qwen/Qwen2.5-Omni-7B", "checkpoint: a folder, or a hub id that lies in the local cache")
	flags.StringVar(&s.query, "query-type", "text", "what the prompts are made of; only text for now")
	flags.StringVar(&s.query, "q", "text", "the same as --query-type")
	flags.StringVar(&s.prompts, "txt-prompts", "", "file with a prompt a line")
	flags.IntVar(&s.count, "num-prompts", 1, "how often to ask, without --txt-prompts")
	flags.StringVar(&s.output, "output-dir", "output_audio", "folder for {request}.txt and output_{request}.wav")
	flags.StringVar(&s.output, "output-wav", "output_audio", "the same as --output-dir")
	flags.StringVar(&s.modalities, "modalities", "", "what to make: text, audio or text,audio; both if empty")
	flags.StringVar(&s.stageConfigs, "stage-configs-path", "", "YAML file with the stages' deployment")
	flags.StringVar(&s.profileDir, "profile-dir", "", "record each stage and write its trace and operator table there")
	flags.StringVar(&s.profileStages, "profile-stages", "", "record only these stages: ids such as 0,2")
	flags.IntVar(&s.maxTokens, "max-tokens", 2048, "end each text after so many tokens")
	flags.Int64Var(&s.seed, "seed", 42, "makes the answers repeatable")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case s.query != "text":
		return nil, fmt.Errorf("--query-type %s: prompts with images, audio or video are not supported yet, want text", s.query)
	case s.count < 1:
		return nil, fmt.Errorf("--num-prompts is %d, want 1 or more", s.count)
	}
	return s, nil
}

// requests makes one request for each prompt, with the sampling of the example.
func (s *settings) requests() ([]pipeline.Request, error) {
	var prompts []string
	for range s.count {
		prompts = append(prompts, question)
	}
	if s.prompts != "" {
		text, err := os.ReadFile(s.prompts)
		if err != nil {
			return nil, err
		}
		prompts = nil
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" {
				prompts = append(prompts, line)
			}
		}
		if len(prompts) == 0 {
			return nil, fmt.Errorf("%s holds no prompt", s.prompts)
		}
	}
	var wanted []string
	if s.modalities != "" {
		wanted = strings.Split(s.modalities, ",")
	}
	var list []pipeline.Request
	for i, prompt := range prompts {
		list = append(list, pipeline.Request{
			ID: strconv.Itoa(i), Prompt: prompt, Modalities: wanted, Seed: &s.seed, MaxTokens: s.maxTokens,
			Sampling: []config.SamplingParams{
				{Temperature: config.Ptr(0.0), TopP: config.Ptr(1.0), TopK: config.Ptr(int64(-1)), RepetitionPenalty: config.Ptr(1.1)},
				{
					Temperature: config.Ptr(0.9), TopP: config.Ptr(0.8), TopK: config.Ptr(int64(40)),
					MaxTokens: config.Ptr(int64(2048)), RepetitionPenalty: config.Ptr(1.05),
				},
			},
		})
	}
	return list, nil
}

// run opens the model, asks everything at once, and writes the answers.
func run(ctx context.Context, s *settings) (err error) {
	requests, err := s.requests()
	if err != nil {
		return err
	}
	cfg := pipeline.Config{Model: s.model, StageConfigsPath: s.stageConfigs, WorkerPath: os.Getenv("OMNI_WORKER")}
	if s.profileDir != "" {
		cfg.Profiler = profiler.FromDir(s.profileDir)
	}
	stages, err := s.stages()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.output, 0o755); err != nil {
		return err
	}
	omni, err := pipeline.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, omni.Close()) }()
	if s.profileDir != "" {
		if _, err := omni.StartProfile(stages); err != nil {
			return err
		}
	}
	errs := make([]error, len(requests))
	var running sync.WaitGroup
	for i, request := range requests {
		running.Go(func() { errs[i] = s.one(ctx, omni, request) })
	}
	running.Wait()
	if s.profileDir != "" {
		if err := stopProfile(ctx, omni); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

// stopProfile ends the session and waits for all that is made of it.
func stopProfile(ctx context.Context, omni *pipeline.Omni) error {
	report, err := omni.StopProfile(nil)
	if err != nil {
		return err
	}
	if report, err = omni.WaitProfile(ctx, report.Session); err != nil {
		return err
	}
	for _, file := range report.Files {
		fmt.Println("profile:", file.Path)
	}
	for _, file := range report.Pictures.Files {
		fmt.Println("profile:", file.Path)
	}
	if report.Pictures.Error != "" {
		return errors.New(report.Pictures.Error)
	}
	return nil
}

// stages reads --profile-stages.
func (s *settings) stages() ([]int, error) {
	if s.profileStages == "" {
		return nil, nil
	}
	var list []int
	for text := range strings.SplitSeq(s.profileStages, ",") {
		id, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("--profile-stages: %q is no stage id", text)
		}
		list = append(list, id)
	}
	return list, nil
}

// one asks one question and writes its files.
func (s *settings) one(ctx context.Context, omni *pipeline.Omni, request pipeline.Request) error {
	response, err := omni.Generate(ctx, request)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("Prompt:\n%s\n\nvllm_text_output:\n%s\n", request.Prompt, strings.TrimSpace(response.Text))
	path := filepath.Join(s.output, request.ID+".txt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Printf("request %s: text in %s\n", request.ID, path)
	if response.Audio == nil {
		return nil
	}
	path = filepath.Join(s.output, "output_"+request.ID+".wav")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := media.WriteWAVFile(path, response.Audio.SampleRate, response.Audio.PCM); err != nil {
		return err
	}
	fmt.Printf("request %s: speech in %s\n", request.ID, path)
	return nil
}
