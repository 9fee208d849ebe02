<?php
// Gives the first administrator the password of the secret, and makes the account anew if it is gone.

declare(strict_types=1);

require __DIR__ . '/wordpress.php';

$user = get_user_by('login', 'admin');
if ($user) {
    wp_set_password(administrator(), $user->ID);
} else {
    $id = wp_create_user('admin', administrator());
    if (is_wp_error($id)) {
        fail('cannot make the account: ' . $id->get_error_message());
    }
    $user = new WP_User($id);
}
$user->set_role('administrator');
