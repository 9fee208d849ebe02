package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// askEvery is the pause between questions.
const askEvery = 50 * time.Millisecond

// AwaitConfig asks the gateway at address (HOST:PORT) until it follows c or ctx ends.
func AwaitConfig(ctx context.Context, address string, c Config) error {
	want := c.Digest()
	for {
		h, err := ask(ctx, address)
		if err == nil && h.Config == want {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the gateway does not follow its routes: %w (last answer: %+v, %v)", context.Cause(ctx), h, err)
		case <-time.After(askEvery):
		}
	}
}

func ask(ctx context.Context, address string) (h Health, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+HealthPath, nil)
	if err != nil {
		return h, err
	}
	r.Close = true // its place is for visitors
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return h, err
	}
	defer answer.Body.Close()
	return h, json.NewDecoder(io.LimitReader(answer.Body, 1<<10)).Decode(&h)
}
