package backup

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"allotment/api"
)

// sshServer gives whoever has the password a subsystem that answers in capitals.
func sshServer(t *testing.T, password string) (address string, key ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PasswordCallback: func(c ssh.ConnMetadata, p []byte) (*ssh.Permissions, error) {
		if c.User() != "club" || string(p) != password {
			return nil, errors.New("refused")
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(c, config)
		}
	}()
	return l.Addr().String(), signer.PublicKey()
}

func serveSSH(c net.Conn, config *ssh.ServerConfig) {
	defer c.Close()
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for n := range channels {
		channel, asked, err := n.Accept()
		if err != nil {
			return
		}
		for q := range asked {
			sftp := q.Type == "subsystem" && bytes.HasSuffix(q.Payload, []byte("sftp"))
			_ = q.Reply(sftp, nil)
			if !sftp {
				continue
			}
			b, _ := io.ReadAll(channel)
			_, _ = channel.Write(bytes.ToUpper(b))
			_, _ = channel.SendRequest("exit-status", false, []byte{0, 0, 0, 0})
			channel.Close()
		}
	}
}

func TestSpeakSFTP(t *testing.T) {
	address, key := sshServer(t, "word")
	other, _ := sshServer(t, "word")
	pinned := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	speak := func(address, key, password string) (string, error) {
		env := map[string]string{"ALLOTMENT_SSH_ADDRESS": address, "ALLOTMENT_SSH_USER": "club", "ALLOTMENT_SSH_PASSWORD": password,
			"ALLOTMENT_SSH_HOSTKEY": key}
		var out bytes.Buffer
		err := speakSFTP(func(name string) string { return env[name] }, strings.NewReader("files"), &out)
		return out.String(), err
	}
	if got, err := speak(address, pinned, "word"); err != nil || got != "FILES" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := speak(other, pinned, "word"); err == nil || !strings.Contains(err.Error(), "host key mismatch") {
		t.Errorf("another server is believed: %v", err)
	}
	if _, err := speak(address, pinned, "guess"); err == nil {
		t.Error("a wrong password is no error")
	}
	if _, err := speak(address, "", "word"); err == nil {
		t.Error("a server is believed whose key is not known")
	}
	target := api.BackupTarget{Kind: SFTP, Address: address, User: "club", Secret: "word"}
	if err := know(t.Context(), &target); err != nil || target.HostKey != pinned {
		t.Errorf("the key that is seen first is %q: %v", target.HostKey, err)
	}
	target.HostKey = "ssh-ed25519 given"
	if err := know(t.Context(), &target); err != nil || target.HostKey != "ssh-ed25519 given" {
		t.Errorf("a key that was given is exchanged for %q: %v", target.HostKey, err)
	}
}
