<?php
// Logs in as the administrator through the web server, as a browser would, and wants to see the dashboard.

declare(strict_types=1);

const SITE = 'http://127.0.0.1:8080';

// ask makes a request and returns the answer's header lines and body. Redirections are not followed.
function ask(string $path, array $options): array
{
    $context = stream_context_create(['http' => $options + [
        'follow_location' => 0, 'ignore_errors' => true, 'timeout' => 60,
    ]]);
    $body = file_get_contents(SITE . $path, false, $context);
    if ($body === false) {
        fwrite(STDERR, "no answer to $path\n");
        exit(1);
    }
    return [http_get_last_response_headers(), $body];
}

$form = http_build_query([
    'log' => 'admin', 'pwd' => trim(file_get_contents('/run/secrets/admin')), 'testcookie' => '1',
]);
[$headers] = ask('/wp-login.php', [
    'method' => 'POST', 'content' => $form,
    'header' => "Content-Type: application/x-www-form-urlencoded\r\nCookie: wordpress_test_cookie=WP%20Cookie%20check",
]);
$cookies = [];
foreach ($headers as $line) {
    if (preg_match('/^Set-Cookie: ([^=]+=[^;]+)/i', $line, $match)) {
        $cookies[] = $match[1];
    }
}
[$headers, $body] = ask('/wp-admin/', ['header' => 'Cookie: ' . implode('; ', $cookies)]);
if (!str_contains($body, 'id="dashboard-widgets"')) {
    fwrite(STDERR, 'no dashboard after the login: ' . $headers[0] . "\n");
    exit(1);
}
