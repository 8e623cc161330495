// Command chat asks a server a question, prints the answer as it comes, and writes the speech to a file:
//
//	go run ./examples/online_serving/chat --url http://127.0.0.1:8000 --prompt "Why is the sky blue?" --output answer.wav
//
// The key, if the server wants one, is read from OMNI_API_KEY.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/omni-run/omni/api/client"
)

func main() {
	url := flag.String("url", "http://127.0.0.1:8000", "the server")
	model := flag.String("model", "", "name of the model; the one that is served if empty")
	prompt := flag.String("prompt", "Why is the sky blue? Answer in one sentence.", "what to ask")
	voice := flag.String("voice", "", "who speaks; GET /v1/audio/voices lists the voices")
	modalities := flag.String("modalities", "text,audio", "what the answer shall have: text, audio or both")
	maxTokens := flag.Int("max-tokens", 0, "end the text after so many tokens")
	output := flag.String("output", "answer.wav", "file for the speech")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &client.Client{URL: *url, Key: os.Getenv("OMNI_API_KEY")}
	if err := ask(ctx, server, client.Chat{
		Model: *model, Messages: []client.Message{{Role: "user", Content: *prompt}}, MaxTokens: *maxTokens,
		Modalities: strings.Split(*modalities, ","), Audio: &client.Audio{Voice: *voice, Format: "wav"},
	}, *output); err != nil {
		fmt.Fprintln(os.Stderr, "chat:", err)
		os.Exit(1)
	}
}

// ask prints the text of the answer while it is written and saves the speech.
func ask(ctx context.Context, server *client.Client, chat client.Chat, output string) error {
	var speech bytes.Buffer
	for piece, err := range server.Stream(ctx, chat) {
		if err != nil {
			return err
		}
		fmt.Print(piece.Text)
		speech.Write(piece.Audio)
		if piece.Usage != nil {
			fmt.Printf("\n%d tokens in, %d out\n", piece.Usage.PromptTokens, piece.Usage.CompletionTokens)
		}
	}
	if speech.Len() == 0 {
		return nil
	}
	if err := os.WriteFile(output, speech.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Println("speech:", output)
	return nil
}
