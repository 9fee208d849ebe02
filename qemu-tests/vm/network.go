package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Address is the address on this host, as 127.0.0.1:PORT, that leads to a forwarded TCP port of the machine.
func (v *VM) Address(port int) string { return v.ports[port] }

// findPorts asks QEMU which host ports it was given.
func (v *VM) findPorts(ctx context.Context) (map[int]string, error) {
	if len(v.opts.Forward) == 0 {
		return nil, nil
	}
	answer, err := v.qmp.execute(ctx, "human-monitor-command", map[string]string{"command-line": "info usernet"})
	if err != nil {
		return nil, err
	}
	var table string
	if err := json.Unmarshal(answer, &table); err != nil {
		return nil, err
	}
	ports := parseForwards(table)
	for _, p := range v.opts.Forward {
		if ports[p] == "" {
			return nil, fmt.Errorf("cannot find forwarded port %d in QEMU's table:\n%s", p, table)
		}
	}
	return ports, nil
}

// parseForwards reads the rows of QEMU's table that stand for forwarded ports:
//
//	TCP[HOST_FORWARD]  11       127.0.0.1 42567       10.0.2.15    80     0     0
func parseForwards(table string) map[int]string {
	ports := map[int]string{}
	for row := range strings.Lines(table) {
		f := strings.Fields(row)
		if len(f) < 6 || f[0] != "TCP[HOST_FORWARD]" {
			continue
		}
		if p, err := strconv.Atoi(f[5]); err == nil {
			ports[p] = net.JoinHostPort(f[2], f[3])
		}
	}
	return ports
}

// Page is the answer to an HTTP request.
type Page struct {
	Status int
	Header http.Header
	Body   []byte
	Wall   time.Duration // since power-on
	CPU    time.Duration // of the QEMU process since its start
}

// retry is how long Get waits before it asks again. QEMU accepts connections for the machine at any time, so that only
// an answer shows that somebody is there.
const retry = 200 * time.Millisecond

// Get asks a forwarded port of the machine for a path until it answers with status 200, ctx ends or the machine ends.
func (v *VM) Get(ctx context.Context, port int, path string) (Page, error) {
	url := "http://" + v.Address(port) + path
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	defer client.CloseIdleConnections()
	var last error
	for {
		p, err := fetch(ctx, client, url)
		if err == nil && p.Status == http.StatusOK {
			p.Wall, p.CPU = v.Clock()
			return p, nil
		}
		if err == nil {
			err = fmt.Errorf("status %d", p.Status)
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-v.ended:
			_, _, why := v.Wait(ctx, 0, func(Event) bool { return false })
			return Page{}, fmt.Errorf("cannot get %s (last answer: %v): %w", url, last, why)
		case <-ctx.Done():
			return Page{}, fmt.Errorf("cannot get %s (last answer: %v): %w", url, last, v.explain(context.Cause(ctx)))
		case <-time.After(retry):
		}
	}
}

// biggestPage bounds what is read of an answer, in bytes.
const biggestPage = 16 << 20

func fetch(ctx context.Context, client *http.Client, url string) (Page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Page{}, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return Page{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, biggestPage+1))
	if err == nil && len(body) > biggestPage {
		err = errors.New("the answer is too long")
	}
	return Page{Status: answer.StatusCode, Header: answer.Header, Body: body}, err
}
