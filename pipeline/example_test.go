package pipeline_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/omni-run/omni/pipeline"
	"github.com/omni-run/omni/pipeline/pipelinetest"
	"github.com/omni-run/omni/profiler"
)

// A pipeline is opened on a checkpoint with pipeline.Open(ctx, pipeline.Config{Model: "Qwen/Qwen2.5-Omni-7B"}). So that
// this example can run anywhere, it takes the engines and the graph of package pipelinetest instead; everything after
// the opening is the same.
func Example() {
	profiles, err := os.MkdirTemp("", "profiles")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(profiles)

	ctx := context.Background()
	cfg, err := pipelinetest.NewConfig(nil)
	if err != nil {
		log.Fatal(err)
	}
	cfg.Profiler = profiler.FromDir(profiles)
	omni, err := pipeline.OpenGraph(ctx, cfg, pipelinetest.Graph())
	if err != nil {
		log.Fatal(err)
	}
	defer omni.Close()

	if _, err := omni.StartProfile([]int{0, 2}); err != nil {
		log.Fatal(err)
	}
	response, err := omni.Generate(ctx, pipeline.Request{Prompt: "Say something.", MaxTokens: 6})
	if err != nil {
		log.Fatal(err)
	}
	report, err := omni.StopProfile(nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(response.Text, response.FinishReason)
	fmt.Println(response.Audio.Samples, "samples at", response.Audio.SampleRate, "Hz")
	fmt.Println(len(report.Files), "files of session", report.Session)
	// Output:
	// vcjqxe length
	// 20 samples at 40 Hz
	// 4 files of session s1
}

func ExampleOmni_Stream() {
	ctx := context.Background()
	cfg, err := pipelinetest.NewConfig(nil)
	if err != nil {
		log.Fatal(err)
	}
	omni, err := pipeline.OpenGraph(ctx, cfg, pipelinetest.Graph())
	if err != nil {
		log.Fatal(err)
	}
	defer omni.Close()

	for event, err := range omni.Stream(ctx, pipeline.Request{Prompt: "Say something.", MaxTokens: 6}) {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Kind {
		case pipeline.EventText:
			fmt.Print(event.Text, " ")
		case pipeline.EventAudio:
			fmt.Print(len(event.Samples), " samples ")
		case pipeline.EventDone:
			fmt.Println(event.Response.FinishReason)
		}
	}
	// Output: v c j q x e 8 samples 12 samples length
}
