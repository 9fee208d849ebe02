package xmpptest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// OpenInBrowser opens an XMPP stream in a web socket (RFC 6455, RFC 7395), as the client in the browser does.
func OpenInBrowser(ctx context.Context, client *http.Client, url, domain string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "xmpp",
	} {
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	socket, ok := resp.Body.(io.ReadWriter)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		return fmt.Errorf("cannot open a web socket at %s: %s", url, resp.Status)
	}
	text := "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='" + domain + "' version='1.0'/>"
	const final, isText, masked = 0x80, 0x01, 0x80
	frame := append([]byte{final | isText, masked | byte(len(text)), 0, 0, 0, 0}, text...) // a mask of zeros changes nothing
	if len(text) > 125 {
		return fmt.Errorf("cannot send %d bytes in a short frame", len(text))
	}
	if _, err := socket.Write(frame); err != nil {
		return err
	}
	answer := make([]byte, 64)
	if _, err := io.ReadFull(socket, answer); err != nil {
		return err
	}
	if !bytes.Contains(answer, []byte("<open")) {
		return fmt.Errorf("cannot open a stream: the answer is %q", answer)
	}
	return nil
}
